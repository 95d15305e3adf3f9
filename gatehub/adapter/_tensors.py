"""gates.safetensors: written in one fixed form, read without trusting a byte of it.

The format is safetensors': 8 bytes of header length, a JSON header, then the tensors' bytes.
safetensors itself refuses truncation, overlaps and holes; NaN, duplicate keys, names that are
paths, huge headers, and tensors other than the declared ones are refused here. Packed gates lie in
it as bytes; see `gatehub.adapter.coding.packed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gatehub._text import first_line, quote
from gatehub.adapter._fields import Fields, describe, parse_json
from gatehub.adapter.coding.packed import FLOATS, TensorSpec, pack, unpack
from gatehub.adapter.coding.values import DIVERGED, check_values, is_finite
from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.names import check_tensor_name
from gatehub.errors import (
    ConfigError,
    CorruptTensorsError,
    HeaderTooLargeError,
    MissingTensorError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnknownTensorError,
)

MAX_HEADER_BYTES = 1_000_000
_METADATA = "__metadata__"
PREFIX_BYTES = 8


def dump_tensors(tensors: Mapping[str, Tensor], config: AdapterConfig) -> bytes:
    """Return the bytes of gates.safetensors.

    Args:
        tensors: by name.
        config: declares how each is stored.

    Raises:
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of its stored dtype.
    """
    rests = config.layout.gate_rests()
    stored = {
        name: _encode(tensors[name].cpu(), spec, name, rest=rests.get(name, 0.0))
        for name, spec in config.tensors.items()
    }
    return _serialise(stored, config.tensors, _metadata(config))


def round_tensor(tensor: Tensor, spec: TensorSpec, name: str, *, rest: float) -> Tensor:
    """Return a tensor as float32, with the values that storing it leaves.

    Raises:
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of its stored dtype.
    """
    stored = _encode(tensor, spec, name, rest=rest)
    return unpack(stored, spec, rest=rest).to(tensor.device) if spec.is_packed else stored.float()


def _encode(tensor: Tensor, spec: TensorSpec, name: str, *, rest: float) -> Tensor:
    """Return a tensor as it lies in the file."""
    floats = FLOATS.get(spec.dtype, torch.float32)
    stored = tensor.detach().to(floats).contiguous()
    if is_finite(stored):
        return pack(tensor, spec, rest=rest) if spec.is_packed else stored
    beyond = is_finite(tensor)
    reason = f"values beyond the range of {spec.dtype}" if beyond else "NaN or infinity"
    raise NonFiniteTensorError(
        f"Tensor {quote(name)} holds {reason}, so it cannot be stored.",
        hint="Save with dtype='float32'." if beyond else DIVERGED,
    )


def read_header_length(prefix: bytes, where: str) -> int:
    """Return the length of the header from a file's first 8 bytes.

    Raises:
        CorruptTensorsError: it is shorter than that.
        HeaderTooLargeError: it announces a header over the limit.
    """
    if len(prefix) < PREFIX_BYTES:
        raise CorruptTensorsError(
            f"'{where}' has {len(prefix)} bytes, which is too short for a safetensors file."
        )
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise HeaderTooLargeError(
            f"'{where}' announces a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} "
            "are read."
        )
    return length


def check_header(data: bytes, config: AdapterConfig, *, where: str) -> None:
    """Refuse a file by its header, before the tensors are read.

    Args:
        data: the header, without its length.
        config: what must be in the file, and which backbone the header must name.
        where: the file's path, for the errors.

    Raises:
        AdapterFormatError: one subclass for each way in which a header can be wrong.
    """
    try:
        header = f"The header of '{where}'"
        fields = Fields(parse_json(data, where=header), where=header)
        _check_metadata(fields.take_fields(_METADATA), config)
        names = fields.names()
        for name in names:
            check_tensor_name(name, where)
        _check_names(set(names), config.tensors, where)
        for name, spec in config.tensors.items():
            _check_entry(fields.take_fields(name), name, spec, where)
    except ConfigError as error:
        raise CorruptTensorsError(error.message, hint="Fetch or save it again.") from error


def load_tensors(data: bytes, config: AdapterConfig, *, where: str) -> dict[str, Tensor]:
    """Read the tensors of a file whose header was checked, as float32.

    Args:
        data: the whole file.
        config: what is in it.
        where: the file's path, for the errors.

    Raises:
        CorruptTensorsError: the tensors overlap, leave holes, or do not fill the file; or packed
            gates are not as they are written.
        NonFiniteTensorError: a value is NaN or infinite.
        NegativeVarianceError: a running variance is below 0.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise CorruptTensorsError(
            f"'{where}' is not a valid safetensors file: {first_line(error)}.",
            hint="Fetch or save it again.",
        ) from error
    rests = config.layout.gate_rests()
    for name, spec in config.tensors.items():
        if spec.is_packed:
            try:
                tensors[name] = unpack(tensors[name], spec, rest=rests[name])
            except ValueError as error:
                raise CorruptTensorsError(
                    f"Tensor {quote(name)} in '{where}' is not of its dtype {spec.dtype}: it has "
                    f"{error}.",
                    hint="Fetch or save it again.",
                ) from error
    check_values(tensors, f"'{where}'")
    return {name: tensors[name].float() for name in config.tensors}


def _serialise(
    tensors: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]
) -> bytes:
    """Write the safetensors format with one possible result for given tensors.

    safetensors' own writer orders the metadata at random, so equal adapters would differ.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    body = bytearray()
    # Wider numbers first keeps every tensor aligned, as the format recommends.
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        dtype, shape = specs[name].entry
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % PREFIX_BYTES)
    prefix = len(text).to_bytes(PREFIX_BYTES, "little")
    read_header_length(prefix, "gates.safetensors")
    return prefix + text + bytes(body)


def _metadata(config: AdapterConfig) -> dict[str, str]:
    return {
        "format_version": str(config.format_version),
        "backbone_digest": config.backbone.digest,
    }


def _check_metadata(fields: Fields, config: AdapterConfig) -> None:
    for key, expected in _metadata(config).items():
        found = fields.take(key, str)
        if found != expected:
            raise CorruptTensorsError(
                f"{fields.where} names the {key} {describe(found)}, but its config "
                f"{describe(expected)}.",
                hint="The two files are not of one adapter; fetch or save it again.",
            )
    fields.done()


def _check_names(names: set[str], specs: Mapping[str, TensorSpec], where: str) -> None:
    unknown = sorted(names - specs.keys())
    if unknown:
        raise UnknownTensorError(
            f"'{where}' holds {quote(unknown[0])}, which its config does not declare "
            f"({len(unknown)} such)."
        )
    missing = sorted(specs.keys() - names)
    if missing:
        raise MissingTensorError(
            f"'{where}' lacks {quote(missing[0])}, which its config declares ({len(missing)} such)."
        )


def _check_entry(fields: Fields, name: str, spec: TensorSpec, where: str) -> None:
    dtype, shape = fields.take("dtype", str), fields.take_list("shape", int)
    fields.take_list("data_offsets", int)
    fields.done()
    declared, size = spec.entry
    if dtype != declared:
        raise TensorDtypeError(
            f"Tensor {quote(name)} in '{where}' is {describe(dtype)}; its config declares "
            f"{declared}."
        )
    if shape != size:
        raise TensorShapeError(
            f"Tensor {quote(name)} in '{where}' is [{', '.join(map(describe, shape[:5]))}]; its "
            f"config declares {list(size)}."
        )
