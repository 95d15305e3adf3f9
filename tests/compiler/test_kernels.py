"""Packed kernels convolve as torch's own convolution does, and give way where they cannot."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.compiler import kernels
from gatehub.compiler.activations import Activation, read_activation
from gatehub.compiler.kernels import Kernel, Matrix, can_pack, convolve, pair
from gatehub.compiler.layouts import ConvolutionSetting, find_layout
from gatehub.gates.kernel_memory import lay_out
from tests.parity import Tolerance, assert_parity
from tests.threads import call_at_once

aten = torch.ops.aten

ROUNDED = {
    torch.float32: Tolerance(name="another order of sums", relative=5e-6),
    torch.bfloat16: Tolerance(name="bfloat16", relative=0.02),
}
needs_packing = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this torch has no packed kernels on this processor"
)


def pack(
    kernel: Tensor,
    images: Tensor,
    stride: list[int] | int = 1,
    padding: list[int] | int = 0,
    dilation: list[int] | int = 1,
    groups: int = 1,
) -> Kernel:
    """Pack a kernel for images of one shape."""
    setting = ConvolutionSetting(
        stride=tuple(pair(stride)),
        padding=tuple(pair(padding)),
        dilation=tuple(pair(dilation)),
        groups=groups,
    )
    layout = find_layout(tuple(kernel.shape), tuple(images.shape), setting, kernel.dtype)
    return Kernel(kernel, layout)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "groups"),
    [((32, 16, 3, 3), 1), ((32, 16, 1, 1), 1), ((32, 8, 3, 3), 2), ((32, 1, 5, 5), 32)],
)
@pytest.mark.parametrize(
    "setting", [(1, 0, 1), (2, 1, 1), ([2, 1], [0, 1], [1, 2])], ids=("plain", "strided", "pairs")
)
@pytest.mark.parametrize("order", ["channels-last", "usual", "slice", "expanded"])
def test_a_packed_kernel_convolves_as_torch_does(
    dtype: torch.dtype,
    shape: tuple[int, int, int, int],
    groups: int,
    setting: tuple[object, ...],
    order: str,
) -> None:
    if not can_pack(dtype):
        pytest.skip("this processor has no such kernels")
    kernel = lay_out(draw(*shape).to(dtype))
    wide = draw(3, 2 * shape[1] * groups, 9, 8, seed=1).to(dtype)
    images = {
        "channels-last": lay_out(wide[:, ::2]),
        "usual": wide[:, ::2].contiguous(),
        "slice": lay_out(wide)[:, shape[1] * groups :],
        "expanded": wide[:1, :1].expand(2, shape[1] * groups, 9, 8),
    }[order]
    for bias in (None, draw(shape[0], seed=2).to(dtype)):
        expected = F.conv2d(images, kernel, bias, *setting, groups)
        packed = pack(kernel, images, *setting, groups)
        for _ in range(2):
            found = convolve(images, packed, bias, *setting, groups)
            assert found.stride() == expected.stride()
            assert_parity(found.float(), expected.float(), ROUNDED[dtype])
        assert_parity(convolve(images, kernel, bias, *setting, groups).float(), expected.float())


@needs_packing
def test_a_kernel_packed_for_one_size_serves_every_other() -> None:
    kernel = lay_out(draw(64, 64, 3, 3))
    packed = pack(kernel, lay_out(draw(2, 64, 30, 30)), padding=1)
    for batch, side in ((1, 3), (20, 7), (2, 30)):
        images = lay_out(draw(batch, 64, side, side))
        expected = F.conv2d(images, kernel, padding=1)
        assert_parity(convolve(images, packed, None, 1, 1), expected, ROUNDED[torch.float32])


@needs_packing
def test_threads_agree() -> None:
    kernel = lay_out(draw(64, 64, 3, 3))
    images = lay_out(draw(2, 64, 8, 8))
    packed = pack(kernel, images, padding=1)
    answers = call_at_once(lambda: convolve(images, packed, None, 1, 1))
    assert all(torch.equal(answer, answers[0]) for answer in answers)


@needs_packing
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_matrix_multiplies_one_pixel_and_convolves_more(dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip("this processor has no such kernels")
    kernel = lay_out(draw(24, 16, 1, 1).to(dtype) / 4)
    matrix = Matrix(kernel)
    for batch, side in ((1, 1), (3, 1), (2, 5), (1, 1)):
        images = lay_out(draw(batch, 16, side, side).to(dtype))
        other = lay_out(draw(batch, 24, side, side, seed=1).to(dtype))
        for bias in (None, draw(24, seed=2).to(dtype)):
            after = {"other": other, "activation": read("sigmoid")}
            found = convolve(images, matrix, bias, **after)
            expected = torch.sigmoid(F.conv2d(images, kernel, bias) + other)
            assert_parity(found.float(), expected.float(), ROUNDED[dtype])


ACTIVATIONS = {
    "relu": (aten.relu_.default, ()),
    "relu6": (aten.relu6.default, ()),
    "hardtanh": (aten.hardtanh.default, (-0.5, 0.25)),
    "hardtanh, as usual": (aten.hardtanh_.default, ()),
    "leaky_relu": (aten.leaky_relu.default, (0.3,)),
    "leaky_relu, as usual": (aten.leaky_relu_.default, ()),
    "sigmoid": (aten.sigmoid_.default, ()),
    "tanh": (aten.tanh.default, ()),
    "silu": (aten.silu_.default, ()),
    "hardswish": (aten.hardswish_.default, ()),
    "hardsigmoid": (aten.hardsigmoid.default, ()),
    "gelu": (aten.gelu.default, ()),
}


def read(name: str, **keywords: object) -> Activation:
    found = read_activation(*ACTIVATIONS[name], keywords)
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("adds", [False, True], ids=("alone", "with a sum"))
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_sum_and_an_activation_are_what_torch_makes_of_them(
    name: str, adds: bool, dtype: torch.dtype
) -> None:
    if not can_pack(dtype):
        pytest.skip("this processor has no such kernels")
    kernel = lay_out(draw(32, 16, 3, 3).to(dtype) / 8)
    images, other = (lay_out(draw(2, c, 7, 6, seed=c).to(dtype)) for c in (16, 32))
    after = {"other": other if adds else None, "activation": read(name)}
    expected = F.conv2d(images.double(), kernel.double(), padding=1)
    expected = read(name)(expected + other.double() if adds else expected)
    before = other.clone()
    for given in (kernel, pack(kernel, images, padding=1)):
        found = convolve(images, given, None, 1, 1, **after)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert_parity(found.double(), expected, ROUNDED[dtype])
    assert torch.equal(other, before)


@needs_packing
def test_every_activation_is_computed_with_its_convolution() -> None:
    # The table names only what oneDNN knows; behind a sum it knows one.
    assert all(can_pack(torch.float32, read(name)) for name in ACTIVATIONS)
    assert can_pack(torch.float32, adds=True)
    assert can_pack(torch.float32, read("relu"), adds=True)


def test_both_ways_of_gelu_are_told_apart() -> None:
    kernel, images = lay_out(draw(16, 16, 1, 1)), lay_out(draw(1, 16, 5, 5))
    answers = {}
    for way in ("none", "tanh"):
        found = convolve(images, pack(kernel, images), activation=read("gelu", approximate=way))
        answers[way] = F.gelu(F.conv2d(images, kernel), approximate=way)
        assert_parity(found, answers[way], ROUNDED[torch.float32])
    assert not torch.allclose(answers["none"], answers["tanh"], atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "arguments", "keywords"),
    [
        (aten.elu.default, (), {}),
        (aten.relu.default, (), {"inplace": True}),
        (aten.leaky_relu.default, ("slope",), {}),
        (torch.relu_, (), {}),
    ],
)
def test_what_is_no_known_activation_is_none(
    operator: object, arguments: tuple[object, ...], keywords: dict[str, object]
) -> None:
    assert read_activation(operator, arguments, keywords) is None


@needs_packing
@pytest.mark.parametrize("order", ["usual", "slice", "expanded", "row"])
def test_what_is_added_may_lie_in_any_order(order: str) -> None:
    kernel, images = lay_out(draw(16, 16, 1, 1)), lay_out(draw(2, 16, 5, 4))
    wide = draw(2, 32, 5, 4, seed=3)
    other = {
        "usual": wide[:, ::2].contiguous(),
        "slice": lay_out(wide)[:, 16:],
        "expanded": wide[:1, :1].expand(2, 16, 5, 4),
        "row": wide[:, :16, :1].expand(2, 16, 5, 4),
    }[order]
    for bias in (None, draw(16, seed=2)):
        found = convolve(images, pack(kernel, images), bias, other=other, activation=read("relu"))
        expected = torch.relu(F.conv2d(images, kernel, bias) + other)
        assert found.stride() == expected.stride()
        assert_parity(found, expected, ROUNDED[torch.float32])


@needs_packing
@pytest.mark.parametrize("shape", [(1, 16, 1, 1), (2, 16, 1, 1), (1, 16, 1, 4), (1, 16, 4, 1)])
@pytest.mark.parametrize("last", [False, True], ids=("usual", "channels-last"))
def test_a_sum_of_few_pixels_is_computed_too(shape: tuple[int, ...], last: bool) -> None:
    kernel = lay_out(draw(16, 16, 3, 3))
    images, other = lay_out(draw(*shape)), draw(*shape, seed=1)
    after = {"other": lay_out(other) if last else other, "activation": read("relu")}
    found = convolve(images, pack(kernel, images, padding=1), None, 1, 1, **after)
    expected = torch.relu(F.conv2d(images, kernel, padding=1) + other)
    assert_parity(found, expected, ROUNDED[torch.float32])


def absent(*arguments: object) -> Tensor:
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute 'it'")


def refused(*arguments: object) -> Tensor:
    raise RuntimeError("bf16 path needs the cpu support avx512bw")


def wrong(images: Tensor, *arguments: object) -> Tensor:
    return torch.zeros_like(images)


@pytest.mark.parametrize("operator", [absent, refused, wrong])
def test_a_torch_without_these_operators_convolves_as_it_does(
    operator: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kernel, "convolve", lambda self, *arguments, **_: operator(*arguments))
    kernels.can_pack.cache_clear()
    try:
        assert not can_pack(torch.float32)
    finally:
        kernels.can_pack.cache_clear()
