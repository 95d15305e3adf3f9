"""The bytes of a gate that is not stored as plain floating-point numbers.

In gates.safetensors it is a U8 tensor of one dimension, which holds, one behind the other:

1. scales, where the dtype is I8, I4 or I1: bfloat16, little-endian; see `quantised`;
2. a map, where the config says how many values are "kept": a bit for each value in the order of
   the rows, 1 where it is stored; all others are at rest, where M = 1. Lowest bit first;
3. the values that are stored, in the same order. I8: a signed byte. I4: code + 8 in four bits, low
   half of a byte first. I1: a bit, 1 for plus, lowest first. F16, BF16, F32: as they are,
   little-endian.

Bits at the end of a map or of the values that stand for nothing are 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gatehub.adapter.coding.quantised import LARGEST, count_scales, quantise, restore

FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
BITS = {"I8": 8, "I4": 4, "I1": 1}
SIZES = {"F16": 2, "BF16": 2, "F32": 4}

# What a user may ask for, and the dtype that it is written as. "sparse" is float16 with a map.
SPARSE = "sparse"
STORED_AS = {
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "int8": "I8",
    "int4": "I4",
    "sign": "I1",
    SPARSE: "F16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """How one tensor is stored.

    Args:
        dtype: "F16", "BF16" or "F32", as safetensors writes it; "I8", "I4" or "I1" for gates as
            whole numbers.
        shape: its dimensions.
        kept: how many of its values are stored, where those at rest are not; None for all.
    """

    dtype: str
    shape: tuple[int, ...]
    kept: int | None = None

    @property
    def count(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def is_packed(self) -> bool:
        """Whether it is no plain tensor of safetensors."""
        return self.dtype in BITS or self.kept is not None

    @property
    def bytes(self) -> int:
        """How many bytes it takes in the file."""
        if not self.is_packed:
            return self.count * SIZES[self.dtype]
        stored = self.count if self.kept is None else self.kept
        scales = 2 * count_scales(self.shape) if self.dtype in BITS else 0
        bits = BITS.get(self.dtype) or 8 * SIZES[self.dtype]
        return scales + (0 if self.kept is None else _bytes(self.count)) + _bytes(stored * bits)

    @property
    def entry(self) -> tuple[str, tuple[int, ...]]:
        """Dtype and shape of the tensor in the safetensors file."""
        return ("U8", (self.bytes,)) if self.is_packed else (self.dtype, self.shape)


def choose_spec(tensor: Tensor, dtype: str, *, rest: float) -> TensorSpec:
    """Return how a gate is stored in the fewest bytes of a dtype.

    Args:
        tensor: its values.
        dtype: a key of `STORED_AS`.
        rest: the value at which M = 1.
    """
    shape = tuple(tensor.shape)
    dense = TensorSpec(dtype=STORED_AS[dtype], shape=shape)
    if dense.dtype not in BITS and dtype != SPARSE:
        return dense
    moved = _moved(tensor, dense, rest)
    sparse = TensorSpec(dtype=dense.dtype, shape=shape, kept=int(np.count_nonzero(moved)))
    if dense.dtype == "I1":  # a bit has no way to say that a gate is at rest
        return sparse if sparse.kept != sparse.count else dense
    return min(dense, sparse, key=lambda spec: spec.bytes)


def pack(tensor: Tensor, spec: TensorSpec, *, rest: float) -> Tensor:
    """Return a gate's bytes, (spec.bytes,) uint8.

    Args:
        tensor: its values, finite in the dtype of `spec`.
        spec: from `choose_spec`.
        rest: the value at which M = 1.
    """
    parts: list[bytes] = []
    if spec.dtype in BITS:
        codes, scales = quantise(tensor, bits=BITS[spec.dtype], rest=rest)
        parts.append(_to_bytes(scales))
        values = codes.reshape(-1).cpu()
    else:
        values = tensor.detach().to("cpu", FLOATS[spec.dtype]).reshape(-1)
    if spec.kept is not None:
        moved = _moved(tensor, spec, rest)
        parts.append(np.packbits(moved, bitorder="little").tobytes())
        values = values[torch.from_numpy(moved)]
    parts.append(_write_codes(values.numpy(), spec) if spec.dtype in BITS else _to_bytes(values))
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8)


def unpack(data: Tensor, spec: TensorSpec, *, rest: float) -> Tensor:
    """Return a gate of its bytes, as float32.

    Args:
        data: (spec.bytes,) uint8.
        spec: how it is stored.
        rest: the value at which M = 1.

    Raises:
        ValueError: bytes that `pack` does not write; the message is the end of a sentence.
    """
    raw = data.numpy()
    count = stored = spec.count
    place = torch.ones(count, dtype=torch.bool)
    scales = torch.zeros(0)
    if spec.dtype in BITS:
        cut = 2 * count_scales(spec.shape)
        scales, raw = _from_bytes(raw[:cut], torch.bfloat16), raw[cut:]
        if not (scales.isfinite() & (scales >= 0)).all():
            raise ValueError("a scale that is negative or not finite")
    if spec.kept is not None:
        bits = _read_bits(raw[: _bytes(count)], count)
        raw, stored = raw[_bytes(count) :], spec.kept
        if int(bits.sum()) != stored:
            raise ValueError(f"a map of {int(bits.sum())} values, where {stored} are kept")
        place = torch.from_numpy(bits)
    if spec.dtype not in BITS:
        values = torch.full((count,), rest)
        values[place] = _from_bytes(raw, FLOATS[spec.dtype]).float()
        return values.view(spec.shape)
    codes = torch.zeros(count, dtype=torch.int8)
    codes[place] = torch.from_numpy(_read_codes(raw, stored, BITS[spec.dtype]))
    return restore(codes.view(spec.shape), scales, rest=rest)


def _moved(tensor: Tensor, spec: TensorSpec, rest: float) -> npt.NDArray[np.bool_]:
    """Which values differ from rest once they are rounded, (count,)."""
    if spec.dtype in BITS:
        moved = quantise(tensor, bits=BITS[spec.dtype], rest=rest)[0] != 0
    else:
        moved = tensor.detach().to(FLOATS[spec.dtype]) != rest
    found: npt.NDArray[np.bool_] = moved.reshape(-1).cpu().numpy()
    return found


def _write_codes(codes: npt.NDArray[np.int8], spec: TensorSpec) -> bytes:
    bits = BITS[spec.dtype]
    if bits == 8:
        return codes.tobytes()
    if bits == 1:
        return np.packbits(codes > 0, bitorder="little").tobytes()
    halves = np.zeros(codes.size + codes.size % 2, np.uint8)
    halves[: codes.size] = codes + 8
    return (halves[0::2] | halves[1::2] << 4).tobytes()


def _read_codes(raw: npt.NDArray[np.uint8], count: int, bits: int) -> npt.NDArray[np.int8]:
    if bits == 1:
        return np.where(_read_bits(raw, count), 1, -1).astype(np.int8)
    if bits == 8:
        codes = raw.view(np.int8).copy()
    else:
        halves = np.stack([raw & 15, raw >> 4], axis=1).reshape(-1)
        if halves[count:].any():
            raise ValueError("bits behind its last value")
        codes = halves[:count].astype(np.int8) - 8
    if (codes < -LARGEST[bits]).any():
        raise ValueError(f"a code below {-LARGEST[bits]}")
    return cast(npt.NDArray[np.int8], codes)


def _read_bits(raw: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(raw, bitorder="little").astype(np.bool_)
    if bits[count:].any():
        raise ValueError("bits behind its last value")
    return bits[:count]


def _to_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _from_bytes(raw: npt.NDArray[np.uint8], dtype: torch.dtype) -> Tensor:
    values = torch.zeros(raw.size // dtype.itemsize, dtype=dtype)
    if raw.size:  # torch views no empty tensor as another dtype
        values.view(torch.uint8).copy_(torch.from_numpy(raw.copy()))
    return values


def _bytes(bits: int) -> int:
    return -(-bits // 8)
