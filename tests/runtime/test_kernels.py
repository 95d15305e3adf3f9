"""Packed kernels convolve as torch's own convolution does, and give way where they cannot."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gatehub.gates.dense import lay_out
from gatehub.runtime import kernels
from gatehub.runtime.kernels import PACKED_VALUES, Kernel, can_pack, convolve, pack
from tests.parity import Tolerance, assert_parity

ROUNDED = {
    torch.float32: Tolerance(name="another order of sums", relative=5e-6),
    torch.bfloat16: Tolerance(name="bfloat16", relative=0.01),
}
needs_packing = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this torch has no packed kernels on this processor"
)


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
        packed = Kernel(kernel)
        for _ in range(2):
            found = convolve(images, packed, bias, *setting, groups)
            assert found.stride() == expected.stride()
            assert_parity(found.float(), expected.float(), ROUNDED[dtype])
        assert_parity(convolve(images, kernel, bias, *setting, groups).float(), expected.float())


@needs_packing
def test_a_kernel_packed_for_one_size_serves_every_other() -> None:
    kernel = lay_out(draw(64, 64, 3, 3))
    packed = Kernel(kernel)
    for batch, side in ((1, 3), (20, 7), (2, 30)):
        images = lay_out(draw(batch, 64, side, side))
        expected = F.conv2d(images, kernel, padding=1)
        assert_parity(convolve(images, packed, None, 1, 1), expected, ROUNDED[torch.float32])


@needs_packing
def test_the_dense_kernel_is_let_go_and_threads_agree() -> None:
    kernel = lay_out(draw(64, 64, 3, 3))
    images = lay_out(draw(2, 64, 8, 8))
    packed = Kernel(kernel)
    start, answers = threading.Barrier(8), []

    def run() -> None:
        start.wait()
        answers.append(convolve(images, packed, None, 1, 1))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert packed._dense is None
    assert packed._packed is not None


def test_only_large_kernels_of_a_cpu_are_packed() -> None:
    large = torch.zeros(PACKED_VALUES // 9 + 1, 1, 3, 3)
    assert isinstance(pack(large), Kernel) == can_pack(torch.float32)
    for tensor in (
        large[:-1].clone()[: PACKED_VALUES // 9],
        large.flatten(),
        large.double(),
        large.half(),
        large.to("meta"),
    ):
        assert pack(tensor) is tensor


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
    monkeypatch.setattr(Kernel, "convolve", lambda self, *arguments: operator(*arguments))
    kernels.can_pack.cache_clear()
    try:
        assert not can_pack(torch.float32)
        large = torch.zeros(PACKED_VALUES, 1, 1, 1)
        assert pack(large) is large
    finally:
        kernels.can_pack.cache_clear()
