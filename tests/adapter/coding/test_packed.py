"""The bytes of gates that are no plain floats, and what they are read as."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.adapter.coding.packed import TensorSpec, choose_spec, pack, unpack
from gatehub.errors import CorruptTensorsError, NonFiniteTensorError, TensorDtypeError
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import GateLayout, SiteGate
from tests.adapter.breaking import numbers
from tests.adapter.sample import CONFIG, TENSORS, make_sample, sample_tensors

# bfloat16 is the upper half of float32: 0x3f80 is 1, 0x3c00 is 1/128, 0x3e80 is 1/4.
ONE_128TH, QUARTER = b"\x00\x3c", b"\x80\x3e"


@pytest.mark.parametrize(
    ("moved", "dtype", "kept", "expected"),
    [
        # One row, so one scale: 127/128 of it in 127 steps.
        ([127, -127, 1, 2], "int8", None, ONE_128TH + bytes([127, 129, 1, 2])),
        # Nothing but the second of nine has moved: its place is the second bit.
        ([0, 127, 0, 0, 0, 0, 0, 0, 0], "int8", 1, ONE_128TH + bytes([2, 0, 127])),
        # 7/4 in 7 steps; 8 is 0, the low half comes first, and the last half is empty.
        ([224, -32, 32], "int4", None, QUARTER + bytes([15 | 7 << 4, 9])),
        ([32, 32, -32, 32, -32, 32, 32, 32, 32], "sign", None, QUARTER + bytes([0b11101011, 1])),
        ([32, 0, -32], "sign", 2, QUARTER + bytes([0b101, 0b01])),
        ([0] * 15 + [64], "sparse", 1, bytes([0, 128]) + b"\x00\x3e"),  # 1.5 as float16
    ],
)
def test_known_bytes(moved: list[int], dtype: str, kept: int | None, expected: bytes) -> None:
    gate = 1 + torch.tensor([moved]) / 128
    spec = choose_spec(gate, dtype, rest=1.0)
    assert spec.kept == kept
    data = pack(gate, spec, rest=1.0)
    assert bytes(data.tolist()) == expected
    assert spec.bytes == len(expected)
    assert torch.equal(unpack(data, spec, rest=1.0), gate)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_plain_floats_stay_plain_whatever_they_are(dtype: str) -> None:
    assert not choose_spec(torch.ones(8, 8), dtype, rest=1.0).is_packed


@pytest.mark.parametrize(
    ("spec", "data", "match"),
    [
        (TensorSpec(dtype="I8", shape=(1, 2)), QUARTER + b"\x80\0", "a code below -127"),
        (TensorSpec(dtype="I4", shape=(1, 2)), QUARTER + b"\x08", "a code below -7"),
        (TensorSpec(dtype="I4", shape=(1, 1)), QUARTER + b"\x18", "bits behind its last value"),
        (TensorSpec(dtype="I1", shape=(1, 3)), QUARTER + b"\x08", "bits behind its last value"),
        (TensorSpec(dtype="I8", shape=(1, 1)), b"\x80\xbe\0", "a scale that is negative"),
        (TensorSpec(dtype="I8", shape=(1, 1)), b"\x80\x7f\0", "a scale that is .*not finite"),
        (TensorSpec(dtype="I8", shape=(1, 1)), b"\xc0\x7f\0", "a scale that is .*not finite"),
        (TensorSpec(dtype="F16", shape=(3,), kept=1), b"\x03\0\0", "map of 2 .* where 1 are kept"),
        (TensorSpec(dtype="F16", shape=(3,), kept=1), b"\x10\0\0", "bits behind its last value"),
    ],
)
def test_bytes_that_are_never_written_are_not_read(
    spec: TensorSpec, data: bytes, match: str
) -> None:
    assert spec.bytes == len(data)
    with pytest.raises(ValueError, match=match):
        unpack(torch.tensor(list(data), dtype=torch.uint8), spec, rest=1.0)


@pytest.mark.parametrize("dtype", ["int8", "int4", "sign", "sparse"])
def test_a_packed_adapter_is_of_version_2_and_smaller(dtype: str, tmp_path: Path) -> None:
    """So a reader of version 1 refuses it by its first field, before it looks at the rest."""
    tensors = wide_tensors()
    plain = wide_sample(tensors).save(tmp_path / "plain")
    packed = wide_sample(tensors).save(tmp_path / dtype, dtype=dtype)
    assert json.loads((plain / CONFIG).read_text())["format_version"] == 1
    text = (packed / CONFIG).read_text()
    assert text.startswith('{\n  "format_version": 2,\n')
    assert Adapter.load(packed).digest == wide_sample(tensors).as_stored(dtype).digest
    sizes = [(folder / TENSORS).stat().st_size for folder in (plain, packed)]
    values = 2 * 32 * 32
    assert sizes[0] - sizes[1] > 0.4 * values


def test_a_packed_gate_that_was_changed_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit", dtype="int8")
    numbers("conv1.gate", b"\xff\xff")(folder)  # its first scale becomes NaN
    match = r"'conv1\.gate' in .* is not of its dtype I8: it has a scale that is negative or not"
    with pytest.raises(CorruptTensorsError, match=match):
        Adapter.load(folder)


def test_another_dtype_than_the_probes_is_refused(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit", dtype="int8")
    config = json.loads((folder / CONFIG).read_text())
    config["probe"] = {"seed": 0, "dtype": "int4", "logits": [[1.0, 2.0]] * 3}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(TensorDtypeError, match="as I8; its probe was computed with int4"):
        Adapter.load(folder)


def test_the_largest_floats_are_packed_and_what_float16_lacks_is_refused(tmp_path: Path) -> None:
    for value in (torch.finfo(torch.float32).max, 3.39e38, 3.2e38):
        large = {**sample_tensors(), "conv1.gate": torch.full((2, 3), value)}
        for dtype in ("int8", "int4", "sign"):
            stored = Adapter.load(make_sample(tensors=large).save(tmp_path / dtype, dtype=dtype))
            assert torch.allclose(stored.tensors["conv1.gate"], large["conv1.gate"], rtol=2**-7)
        with pytest.raises(NonFiniteTensorError, match="values beyond the range of F16"):
            make_sample(tensors=large).save(tmp_path / "sparse", dtype="sparse")
    assert not (tmp_path / "sparse").exists()


def wide_tensors() -> dict[str, Tensor]:
    """Gates of 32 x 32 of which one in ten has moved."""
    generator = torch.Generator().manual_seed(0)
    moved = 0.1 * torch.randn(32, 32, generator=generator)
    moved[torch.rand(32, 32, generator=generator) < 0.9] = 0
    return {"conv.gate": 1 + moved, "head.weight": torch.ones(2, 4), "head.bias": torch.ones(2)}


def wide_sample(tensors: dict[str, Tensor]) -> Adapter:
    gate = SiteGate(kind=parse_kind("full"), shape=(32, 32))
    layout = GateLayout(policy="full", start=None, norm="frozen", sites={"conv": gate})
    return make_sample(tensors=tensors, layout=layout)
