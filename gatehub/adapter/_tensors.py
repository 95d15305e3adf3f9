"""gates.safetensors: written in one fixed form, read without trusting a byte of it.

The format is safetensors': 8 bytes of header length, a JSON header, then the tensors' bytes.
safetensors itself refuses truncation, overlaps and holes; NaN, duplicate keys, names that are
paths, huge headers, and tensors other than the declared ones are refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from gatehub.adapter._fields import Fields, describe, parse_json
from gatehub.adapter._sections import TensorSpec
from gatehub.adapter.config import FORMAT_VERSION
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
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_SIZES = {"F16": 2, "BF16": 2, "F32": 4}


def dump_tensors(
    tensors: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], *, backbone_digest: str
) -> bytes:
    """Return the bytes of gates.safetensors.

    Raises:
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of its stored dtype.
    """
    stored = {}
    for name, spec in specs.items():
        tensor = tensors[name].detach().cpu().to(DTYPES[spec.dtype]).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            beyond = bool(torch.isfinite(tensors[name]).all())
            reason = f"values beyond the range of {spec.dtype}" if beyond else "NaN or infinity"
            raise NonFiniteTensorError(
                f"Tensor '{name}' holds {reason}, so it cannot be stored.",
                hint="Save with dtype='float32'."
                if beyond and spec.dtype != "F32"
                else "The training diverged; lower its learning rate.",
            )
        stored[name] = tensor
    return _serialise(stored, specs, _metadata(backbone_digest))


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


def check_header(
    data: bytes, specs: Mapping[str, TensorSpec], *, backbone_digest: str, where: str
) -> None:
    """Refuse a file by its header, before the tensors are read.

    Args:
        data: the header, without its length.
        specs: what must be in the file, from config.json.
        backbone_digest: what the header must name.
        where: the file's path, for the errors.

    Raises:
        AdapterFormatError: one subclass for each way in which a header can be wrong.
    """
    try:
        header = f"The header of '{where}'"
        fields = Fields(parse_json(data, where=header), where=header)
        _check_metadata(fields.take_fields(_METADATA), backbone_digest)
        names = fields.names()
        for name in names:
            check_tensor_name(name, where)
        _check_names(set(names), specs, where)
        for name, spec in specs.items():
            _check_entry(fields.take_fields(name), name, spec, where)
    except ConfigError as error:
        raise CorruptTensorsError(error.message, hint="Fetch or save it again.") from error


def load_tensors(data: bytes, specs: Mapping[str, TensorSpec], *, where: str) -> dict[str, Tensor]:
    """Read the tensors of a file whose header was checked, as float32.

    Args:
        data: the whole file.
        specs: what is in it.
        where: the file's path, for the errors.

    Raises:
        CorruptTensorsError: the tensors overlap, leave holes, or do not fill the file.
        NonFiniteTensorError: a value is NaN or infinite.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise CorruptTensorsError(
            f"'{where}' is no sound safetensors file: {error}.", hint="Fetch or save it again."
        ) from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteTensorError(f"Tensor '{name}' in '{where}' holds NaN or infinity.")
    return {name: tensors[name].float() for name in specs}


def count_bytes(specs: Mapping[str, TensorSpec]) -> int:
    """Return how many bytes follow the header of a file that holds these tensors."""
    return sum(math.prod(spec.shape) * _SIZES[spec.dtype] for spec in specs.values())


def _serialise(
    tensors: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]
) -> bytes:
    """Write the safetensors format with one possible result for given tensors.

    safetensors' own writer orders the metadata at random, so equal adapters would differ.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    body = bytearray()
    # Wider numbers first keeps every tensor aligned, as the format recommends.
    for name in sorted(tensors, key=lambda name: (-_SIZES[specs[name].dtype], name)):
        data = tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": specs[name].dtype,
            "shape": list(specs[name].shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % PREFIX_BYTES)
    prefix = len(text).to_bytes(PREFIX_BYTES, "little")
    read_header_length(prefix, "gates.safetensors")
    return prefix + text + bytes(body)


def _metadata(backbone_digest: str) -> dict[str, str]:
    return {"format_version": str(FORMAT_VERSION), "backbone_digest": backbone_digest}


def _check_metadata(fields: Fields, backbone_digest: str) -> None:
    for key, expected in _metadata(backbone_digest).items():
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
            f"'{where}' holds '{unknown[0]}', which its config does not declare "
            f"({len(unknown)} such)."
        )
    missing = sorted(specs.keys() - names)
    if missing:
        raise MissingTensorError(
            f"'{where}' lacks '{missing[0]}', which its config declares ({len(missing)} such)."
        )


def _check_entry(fields: Fields, name: str, spec: TensorSpec, where: str) -> None:
    dtype, shape = fields.take("dtype", str), fields.take_list("shape", int)
    fields.take_list("data_offsets", int)
    fields.done()
    if dtype != spec.dtype:
        raise TensorDtypeError(
            f"Tensor '{name}' in '{where}' is {describe(dtype)}; its config declares {spec.dtype}."
        )
    if shape != spec.shape:
        raise TensorShapeError(
            f"Tensor '{name}' in '{where}' is [{', '.join(map(describe, shape[:5]))}]; its config "
            f"declares {list(spec.shape)}."
        )
