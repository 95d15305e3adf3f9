"""gates.safetensors: every way in which it can lie, and the numbers that survive it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.adapter._tensors import MAX_HEADER_BYTES, dump_tensors
from gatehub.adapter.coding.packed import FLOATS, STORED_AS, TensorSpec
from gatehub.adapter.coding.quantised import quantise, restore
from gatehub.errors import (
    AdapterFormatError,
    CorruptTensorsError,
    DigestMismatchError,
    DuplicateKeyError,
    HeaderTooLargeError,
    MissingTensorError,
    NegativeVarianceError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnknownTensorError,
    UnsafeNameError,
)
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import GateLayout, SiteGate
from tests.adapter.breaking import (
    Broken,
    assert_refused,
    copy_golden,
    entry,
    file_bytes,
    header,
    header_bytes,
    header_text,
    numbers,
    put,
    split,
)
from tests.adapter.sample import CONFIG, GOLDEN, TENSORS, contents, make_sample, sample_tensors

GOLDEN_FILE = (GOLDEN / TENSORS).read_bytes()
NAN16, INF16 = struct.pack("<e", float("nan")), struct.pack("<e", float("inf"))
NAN32, INF32 = struct.pack("<f", float("nan")), struct.pack("<f", float("-inf"))


def announce(length: int) -> Any:
    """A file whose first 8 bytes give another length of the header."""
    return file_bytes(lambda data: length.to_bytes(8, "little") + data[8:])


def rename(old: str, new: str) -> Any:
    return header_text(f'"{old}":', f"{json.dumps(new)}:")


def edit_metadata(**changes: object) -> Any:
    return header(lambda found: found["__metadata__"].update(changes))


BROKEN_FILES = [
    Broken("nothing", put(TENSORS, b""), CorruptTensorsError, "has 0 bytes, which is too short"),
    Broken("7 bytes", put(TENSORS, bytes(7)), CorruptTensorsError, "has 7 bytes, which is too"),
    Broken("8 zeros", put(TENSORS, bytes(8)), CorruptTensorsError, "is not JSON"),
    Broken("a pickle", put(TENSORS, b"\x80\x04." * 99), HeaderTooLargeError, "announces a header"),
    Broken("a zip", put(TENSORS, b"PK\x03\x04" * 99), HeaderTooLargeError, "announces a header"),
    Broken(
        "a header over 1 MB",
        announce(1_000_001),
        HeaderTooLargeError,
        "announces a header of 1,000,001 bytes; at most 1,000,000 are read",
    ),
    Broken("a header of 2**63", announce(2**63), HeaderTooLargeError, "of 9,223,372,036,854"),
    Broken("a header of 2**64 - 1", announce(2**64 - 1), HeaderTooLargeError, "18,446,744,073,709"),
    Broken(
        "a header longer than the file",
        announce(999_999),
        CorruptTensorsError,
        "is truncated: its header needs 999,999 bytes, and 1,016 follow",
    ),
    Broken("a header cut short", announce(800), CorruptTensorsError, "is not JSON"),
    Broken("a header of none", announce(0), CorruptTensorsError, "is not JSON"),
    Broken(
        "one byte less",
        file_bytes(lambda data: data[:-1]),
        CorruptTensorsError,
        "is truncated: it has 1,023 bytes, and its tensors need 1,024",
    ),
    Broken(
        "one byte more",
        file_bytes(lambda data: data + b"\0"),
        CorruptTensorsError,
        "is overlong: it has 1,025 bytes, and its tensors need 1,024",
    ),
    Broken(
        "only a header",
        file_bytes(lambda data: data[: 8 + 896]),
        CorruptTensorsError,
        "is truncated: it has 904 bytes",
    ),
    Broken(
        "a flipped bit",
        lambda folder: put(TENSORS, GOLDEN_FILE[:-1] + bytes([GOLDEN_FILE[-1] ^ 1]))(folder),
        DigestMismatchError,
        "has SHA-256 .* but its config names",
    ),
    # The header as JSON.
    Broken("text", header_bytes(lambda old: b"gates"), CorruptTensorsError, "is not JSON in UTF-8"),
    Broken("Latin-1", header_bytes(lambda old: b"{\xe9"), CorruptTensorsError, "not JSON in UTF-8"),
    Broken("a list", header_bytes(lambda old: b"[]"), CorruptTensorsError, "a list of 0 items"),
    Broken("a number", header_bytes(lambda old: b"7"), CorruptTensorsError, "is 7; expected an"),
    Broken("NaN", header_text("[0,8]", "[0,NaN]"), CorruptTensorsError, "holds NaN"),
    Broken(
        "endlessly deep",
        header_bytes(lambda old: b"[" * MAX_HEADER_BYTES),
        CorruptTensorsError,
        "is not JSON in UTF-8",
    ),
    *(
        Broken(
            f"a deep {field}",
            header_text(f'"{field}":', f'"{field}":{"[" * 800}{"]" * 800},"x":'),
            CorruptTensorsError,
            f"{field} is a list of 1 items; expected a string",
        )
        for field in ("format_version", "backbone_digest")
    ),
    Broken(
        "a tensor twice",
        header_text('"bn1.bias":', '"bn1.bias":{},"bn1.bias":'),
        DuplicateKeyError,
        'holds the key "bn1.bias" more than once',
    ),
    Broken(
        "a tensor twice behind very many",
        header_bytes(
            lambda old: b"{" + b",".join(b'"%d":0' % i for i in (*range(90_000), 89_999)) + b"}"
        ),
        DuplicateKeyError,
        'holds the key "89999" more than once',
    ),
    Broken(
        "offsets twice",
        header_text('"data_offsets":[0,8]', '"data_offsets":[0,8],"data_offsets":[0,8]'),
        DuplicateKeyError,
        'holds the key "data_offsets" more than once',
    ),
    # Its metadata.
    Broken(
        "no metadata",
        header(lambda found: found.pop("__metadata__")),
        CorruptTensorsError,
        "lacks the field '__metadata__'",
    ),
    Broken(
        "metadata null",
        header(lambda found: found.update(__metadata__=None)),
        CorruptTensorsError,
        "__metadata__ is null; expected an object",
    ),
    Broken(
        "metadata of another backbone",
        edit_metadata(backbone_digest="f" * 64),
        CorruptTensorsError,
        'names the backbone_digest "ffff.* but its config "0123456789.* not of one adapter',
    ),
    Broken(
        "metadata of another format",
        edit_metadata(format_version="2"),
        CorruptTensorsError,
        'names the format_version "2", but its config "1"',
    ),
    Broken(
        "a number in the metadata",
        edit_metadata(format_version=1),
        CorruptTensorsError,
        "format_version is 1; expected a string",
    ),
    Broken(
        "more metadata",
        edit_metadata(format="pt"),
        CorruptTensorsError,
        '__metadata__ has unknown fields: "format"',
    ),
    # Which tensors there are.
    Broken(
        "an undeclared tensor",
        header(lambda found: found.update({"x.gate": found["conv1.gate"]})),
        UnknownTensorError,
        r"holds 'x.gate', which its config does not declare \(1 such\)",
    ),
    Broken(
        "a missing tensor",
        header(lambda found: found.pop("head.bias")),
        MissingTensorError,
        r"lacks 'head.bias', which its config declares \(1 such\)",
    ),
    Broken(
        "no tensors",
        header_bytes(lambda old: old[: old.index(b"},") + 1] + b"}"),
        MissingTensorError,
        r"lacks 'bn1.bias', which its config declares \(11 such\)",
    ),
    *(
        Broken(
            f"the name {name[:20]!a}",
            rename("conv1.gate", name),
            UnsafeNameError,
            "names a tensor .* expected dotted identifiers",
        )
        for name in ("../x.gate", "/etc/x", "a\\b.gate", "conv1", "", "a\0.gate", "\ud800.gate")
    ),
    # How each is described.
    Broken(
        "an entry of null",
        header(lambda found: found.update({"bn1.bias": None})),
        CorruptTensorsError,
        "bn1.bias is null; expected an object",
    ),
    Broken("an entry with more", entry("strides", [1]), CorruptTensorsError, '"strides"'),
    Broken(
        "an entry without offsets",
        header(lambda found: found["conv1.gate"].pop("data_offsets")),
        CorruptTensorsError,
        "conv1.gate lacks the field 'data_offsets'",
    ),
    *(
        Broken(
            f"dtype {dtype}",
            entry("dtype", dtype),
            TensorDtypeError,
            f"'conv1.gate' in .* is \"{dtype}\"; its config declares F16",
        )
        for dtype in ("BF16", "I16", "F32", "U8", "f16", "F99", "")
    ),
    Broken("dtype 16", entry("dtype", 16), CorruptTensorsError, "dtype is 16; expected a string"),
    *(
        Broken(
            f"shape {shape}",
            entry("shape", shape),
            TensorShapeError,
            r"'conv1.gate' in .*; its config declares \[2, 3\]",
        )
        for shape in ([3, 2], [6], [1, 2, 3], [2, 3, 1], [], [2], [2, -3], [-2, -3], [2**64, 3])
    ),
    Broken(
        "a shape without end",
        entry("shape", [1] * 100_000),
        TensorShapeError,
        r"is \[1, 1, 1, 1, 1\]; its config declares \[2, 3\]",
    ),
    *(
        Broken(
            f"shape {shape}",
            entry("shape", shape),
            CorruptTensorsError,
            r"shape(\[0\])? is .*; expected (an integer|a list)",
        )
        for shape in ([2.0, 3], ["2", 3], [True, 3], [None, 3], [[2], 3], "23", None, 6)
    ),
    # Where its bytes lie: "conv1.gate" has 72 to 84, behind "head.weight" and before "layer1".
    *(
        Broken(
            f"offsets {offsets}",
            entry("data_offsets", offsets),
            CorruptTensorsError,
            "is not a valid safetensors file",
        )
        for offsets in (
            [60, 72],  # overlaps
            [0, 12],
            [72, 85],
            [73, 85],  # leaves a hole
            [72, 83],
            [72, 72],
            [84, 72],
            [108, 132],  # beyond the end
            [2**40, 2**40 + 12],
            [-12, 0],
            [72, -1],
            [2**64 - 12, 2**64],
            [2**64, 2**64 + 12],
            [10**300, 10**300 + 12],
            [72],
            [72, 84, 96],
            [],
        )
    ),
    *(
        Broken(
            f"offsets {offsets}",
            entry("data_offsets", offsets),
            CorruptTensorsError,
            r"data_offsets(\[0\])? is .*; expected (an integer|a list)",
        )
        for offsets in ([72.0, 84], ["72", 84], [True, 84], [None, 84], [[72], 84], "72", None, {})
    ),
    Broken(
        "two tensors in one place",
        entry("data_offsets", [0, 8], tensor="bn1.weight"),
        CorruptTensorsError,
        "is not a valid safetensors file",
    ),
    # What is in them.
    *(
        Broken(
            f"{value} in {tensor}",
            numbers(tensor, data),
            NonFiniteTensorError,
            f"Tensor '{tensor}' in .* holds NaN or infinity",
        )
        for tensor, value, data in (
            ("conv1.gate", "NaN", NAN16),
            ("layer1.0.conv2.gate_b", "infinity", INF16),
            ("head.weight", "NaN", NAN32),
            ("bn1.running_var", "-infinity", INF32),
        )
    ),
    Broken(
        "a variance below zero",
        numbers("bn1.running_var", struct.pack("<f", -1e-30)),
        NegativeVarianceError,
        "Tensor 'bn1.running_var' in .* holds -1e-30; a variance is never below 0",
    ),
]


@pytest.mark.parametrize("broken", BROKEN_FILES, ids=str)
def test_broken_tensor_file_is_refused(broken: Broken, tmp_path: Path) -> None:
    assert_refused(broken, tmp_path)


def test_golden_bytes_hold_the_known_numbers() -> None:
    """Read without any of the code that reads or writes adapters."""
    text, body = split(GOLDEN_FILE)
    found = json.loads(text)
    assert found.pop("__metadata__") == {
        "format_version": "1",
        "backbone_digest": "0123456789abcdef" * 4,
    }
    expected = sample_tensors()
    assert found.keys() == expected.keys()
    for name, described in found.items():
        is_gate = ".gate" in name
        assert described["dtype"] == ("F16" if is_gate else "F32")
        assert described["shape"] == list(expected[name].shape)
        start, end = described["data_offsets"]
        values = [
            value for (value,) in struct.iter_unpack("<e" if is_gate else "<f", body[start:end])
        ]
        assert values == expected[name].flatten().tolist()


def test_safetensors_reads_the_file_and_it_is_aligned() -> None:
    tensors = safetensors.torch.load(GOLDEN_FILE)
    assert {
        name: tensor.dtype for name, tensor in tensors.items() if ".gate" in name
    } == dict.fromkeys(make_sample().layout.gate_shapes(), torch.float16)
    text, _ = split(GOLDEN_FILE)
    assert len(text) % 8 == 0
    with safetensors.safe_open(GOLDEN / TENSORS, framework="pt") as file:
        assert file.metadata()["format_version"] == "1"


@pytest.mark.parametrize(
    ("dtype", "stored", "expected"),
    [
        ("float16", "F16", [0.333251953125, 65504.0]),
        ("bfloat16", "BF16", [0.333984375, 65536.0]),
        ("float32", "F32", [1 / 3, 65504.0]),
    ],
)
def test_gates_are_rounded_to_their_dtype_and_nothing_else_is(
    dtype: str, stored: str, expected: list[float], tmp_path: Path
) -> None:
    values = torch.tensor([1 / 3, 65504.0])
    names = ("layer1.0.conv2.gate_a", "bn1.weight", "head.bias")
    adapter = make_sample(tensors=sample_tensors() | dict.fromkeys(names, values))

    loaded = Adapter.load(adapter.save(tmp_path / "fruit", dtype=dtype))

    gate, norm, head = (loaded.tensors[name] for name in names)
    torch.testing.assert_close(gate, torch.tensor(expected), rtol=0, atol=0)
    assert torch.equal(norm, values)
    assert torch.equal(head, values)
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {torch.float32}
    gates = loaded.layout.gate_shapes()
    for name, spec in loaded.config.tensors.items():
        assert spec.dtype == (stored if name in gates else "F32")


@pytest.mark.parametrize("gates", ["float16", "int8"])
def test_head_and_norms_are_halved_where_that_is_asked_for(gates: str, tmp_path: Path) -> None:
    names = ("bn1.weight", "head.bias", "bn1.running_var")
    values = torch.tensor([1 / 3, 1e-9])
    adapter = make_sample(tensors=sample_tensors() | dict.fromkeys(names, values))

    plain = adapter.save(tmp_path / "plain", dtype=gates)
    half = adapter.save(tmp_path / "half", dtype=f"{gates}+float16")

    config, loaded = Adapter.load(half).config, Adapter.load(half)
    rounded = values.half().float()
    assert torch.equal(loaded.tensors["bn1.weight"], rounded)
    assert torch.equal(loaded.tensors["head.bias"], rounded)
    assert torch.equal(loaded.tensors["bn1.running_var"], values)  # it would be 0
    assert config.format_version == 4
    assert Adapter.load(plain).config.format_version == (1 if gates == "float16" else 2)
    for name, spec in config.tensors.items():
        if name not in config.layout.gate_shapes():
            assert spec.dtype == ("F32" if ".running_" in name else "F16")
    again = loaded.save(tmp_path / "again", dtype=f"{gates}+float16")
    assert (again / "gates.safetensors").read_bytes() == (half / "gates.safetensors").read_bytes()


@pytest.mark.parametrize(
    "dtype",
    [
        *("float64", "I8", "int2", "half", "F16", "torch.float16", ""),
        *("+float16", "int8+float32", "int8+bfloat16", "int8+", "int8+float16+float16"),
    ],
)
def test_other_dtypes_are_refused(dtype: str, tmp_path: Path) -> None:
    with pytest.raises(TensorDtypeError, match=r"stored as bfloat16, .*sparse, or .*, not as"):
        make_sample().save(tmp_path / "fruit", dtype=dtype)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "dtype", "match"),
    [
        ("conv1.gate", 1e6, "float16", r"beyond the range of F16.* Save with dtype='float32'\."),
        (
            "conv1.gate",
            3.4e38,
            "bfloat16",
            r"beyond the range of BF16.* Save with dtype='float32'\.",
        ),
        ("head.weight", 1e300, "float16", r"beyond the range of float32.* lower its learning rate"),
        ("conv1.gate", float("nan"), "float32", r"holds NaN or infinity.* lower its learning rate"),
        ("conv1.gate", float("inf"), "float16", r"holds NaN or infinity.* lower its learning rate"),
        ("bn1.running_var", float("-inf"), "float16", r"holds NaN or infinity"),
    ],
)
def test_numbers_that_cannot_be_stored_are_refused(
    name: str, value: float, dtype: str, match: str, tmp_path: Path
) -> None:
    tensors = sample_tensors()
    tensors[name] = torch.full_like(tensors[name], value, dtype=torch.float64)
    folder = make_sample().save(tmp_path / "fruit")
    before = contents(folder)
    with pytest.raises(NonFiniteTensorError, match=f"Tensor '{name}' {match}|.*{match}"):
        make_sample(tensors=tensors).save(folder, dtype=dtype)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["fruit"]


def test_layout_of_the_memory_does_not_matter(tmp_path: Path) -> None:
    tensors = sample_tensors()
    tensors["conv1.gate"] = tensors["conv1.gate"].T.contiguous().T
    tensors["head.weight"] = tensors["head.weight"].double().requires_grad_()
    tensors["head.bias"] = torch.stack([tensors["head.bias"]] * 2, dim=1)[:, 0]
    folder = make_sample(tensors=tensors).save(tmp_path / "fruit")
    assert (folder / TENSORS).read_bytes() == GOLDEN_FILE


def test_header_that_could_not_be_read_again_is_not_written() -> None:
    specs = {f"{'x' * 200}.{i}": TensorSpec(dtype="F32", shape=(1,)) for i in range(4_000)}
    tensors = dict.fromkeys(specs, torch.ones(1))
    with pytest.raises(HeaderTooLargeError, match="at most 1,000,000"):
        dump_tensors(tensors, make_sample().config.with_files(specs, {}))


NAMES = st.sampled_from(["conv1", "stem.conv", "layer1.0.conv1", "layer4.2.downsample.0", "a_b.c"])
KINDS = st.sampled_from(["full", "scale", "lowrank:1", "lowrank:3"])
SIZES = st.integers(min_value=1, max_value=7)
GATES = st.dictionaries(NAMES, st.tuples(KINDS, SIZES, SIZES), max_size=4)
BITS_OF = {"int8": 8, "int4": 4, "sign": 1}
NORM_PARTS = {"frozen": 0, "affine": 2, "stats": 4}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    gates=GATES,
    norm=st.sampled_from(sorted(NORM_PARTS)),
    classes=SIZES,
    dtype=st.sampled_from(sorted(STORED_AS)),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
    seed=st.integers(min_value=0, max_value=99),
)
def test_any_adapter_comes_back_rounded_and_is_saved_the_same_again(
    tmp_path_factory: pytest.TempPathFactory,
    gates: dict[str, tuple[str, int, int]],
    norm: str,
    classes: int,
    dtype: str,
    scale: float,
    seed: int,
) -> None:
    layout = GateLayout(
        policy="auto",
        start=None,
        norm=norm,
        sites={
            name: SiteGate(kind=parse_kind(kind), shape=(rows, columns))
            for name, (kind, rows, columns) in gates.items()
        },
    )
    parts = ("weight", "bias", "running_mean", "running_var")[: NORM_PARTS[norm]]
    shapes = {
        **layout.gate_shapes(),
        **{f"norm.{part}": (classes + 1,) for part in parts},
        "head.weight": (classes, 3),
        "head.bias": (classes,),
    }
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {
        name: scale * torch.randn(shape, generator=generator) for name, shape in shapes.items()
    }
    for name in tensors.keys() & {"norm.running_var"}:
        tensors[name].abs_()
    adapter = make_sample(
        tensors=tensors, layout=layout, labels=tuple(f"label {i}" for i in range(classes))
    )
    root = tmp_path_factory.mktemp("round")

    loaded = Adapter.load(adapter.save(root / "one", dtype=dtype))

    assert list(loaded.tensors) == list(tensors)
    for name, tensor in tensors.items():
        rounded = tensor
        if ".gate" in name:
            spec, rest = loaded.config.tensors[name], layout.gate_rests()[name]
            if dtype in BITS_OF:
                codes, scales = quantise(tensor, bits=BITS_OF[dtype], rest=rest)
                rounded = restore(codes, scales, rest=rest)
            else:
                rounded = tensor.to(FLOATS[spec.dtype]).float()
        assert torch.equal(loaded.tensors[name], rounded)
    assert loaded.layout == layout
    assert loaded.digest == adapter.as_stored(dtype).digest
    one = contents(root / "one")
    assert contents(adapter.save(root / "two", dtype=dtype)) == one
    assert contents(loaded.save(root / "three", dtype=dtype)) == one


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with a few flipped, put in, taken out, or cut off."""
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        place = draw(st.integers(min_value=0, max_value=len(data)))
        match draw(st.sampled_from(["flip", "insert", "delete", "truncate", "digit"])):
            case "flip" if place < len(data):
                bit = 1 << draw(st.integers(min_value=0, max_value=7))
                data = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
            case "digit" if place < len(data):  # stays JSON more often
                data = (
                    data[:place]
                    + draw(st.sampled_from([b"0", b" ", b'"', b"\\"]))
                    + data[place + 1 :]
                )
            case "insert":
                data = data[:place] + draw(st.binary(min_size=1, max_size=9)) + data[place:]
            case "delete":
                data = data[:place] + data[place + draw(st.integers(1, 9)) :]
            case "truncate" if draw(st.booleans()):
                data = data[:place]
    return data


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=mutated(GOLDEN_FILE))
@example(data=GOLDEN_FILE)
def test_no_other_bytes_of_the_tensor_file_load(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = copy_golden(tmp_path_factory.mktemp("fuzz") / "adapter")
    put(TENSORS, data)(folder)
    if data == GOLDEN_FILE:
        Adapter.load(folder)
        return
    with pytest.raises(AdapterFormatError):
        Adapter.load(folder)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=mutated(GOLDEN_FILE))
def test_other_bytes_with_a_digest_that_fits_load_soundly_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = copy_golden(tmp_path_factory.mktemp("fuzz") / "adapter")
    file_bytes(lambda old: data)(folder)
    try:
        adapter = Adapter.load(folder)
    except AdapterFormatError:
        return
    assert {name: tensor.shape for name, tensor in adapter.tensors.items()} == {
        name: tensor.shape for name, tensor in sample_tensors().items()
    }
    assert all(bool(torch.isfinite(tensor).all()) for tensor in adapter.tensors.values())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=mutated((GOLDEN / CONFIG).read_bytes()))
@example(data=(GOLDEN / CONFIG).read_bytes().replace(b"  ", b"\t").replace(b"\n", b"\r\n"))
def test_other_bytes_of_the_config_are_read_as_they_stand_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = copy_golden(tmp_path_factory.mktemp("fuzz") / "adapter")
    put(CONFIG, data)(folder)
    try:
        adapter = Adapter.load(folder)
    except AdapterFormatError as error:
        refused = error.message
        assert refused.isprintable()
        return
    assert json.loads(adapter.config.to_json()) == json.loads(data)
    for name, tensor in sample_tensors().items():
        assert torch.equal(adapter.tensors[name], tensor)
