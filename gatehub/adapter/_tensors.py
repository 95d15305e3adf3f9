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

from gatehub._text import first_line, quote
from gatehub.adapter._fields import Fields, describe, parse_json
from gatehub.adapter._sections import TensorSpec
from gatehub.adapter.config import FORMAT_VERSION
from gatehub.adapter.names import check_tensor_name
from gatehub.errors import (
    ConfigError,
    CorruptTensorsError,
    HeaderTooLargeError,
    MissingTensorError,
    NegativeVarianceError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnknownTensorError,
)

MAX_HEADER_BYTES = 1_000_000
_METADATA = "__metadata__"
PREFIX_BYTES = 8
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_COMPUTED = (*DTYPES.values(), torch.float64)
_SIZES = {"F16": 2, "BF16": 2, "F32": 4}
_FLOAT32_MAX = torch.finfo(torch.float32).max
_DIVERGED = "The training diverged; lower its learning rate."


def dump_tensors(
    tensors: Mapping[str, Tensor], specs: Mapping[str, TensorSpec], *, backbone_digest: str
) -> bytes:
    """Return the bytes of gates.safetensors.

    Raises:
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of its stored dtype.
    """
    stored = {name: round_tensor(tensors[name].cpu(), spec, name) for name, spec in specs.items()}
    return _serialise(stored, specs, _metadata(backbone_digest))


def round_tensor(tensor: Tensor, spec: TensorSpec, name: str) -> Tensor:
    """Return a tensor in the dtype in which it is stored.

    Raises:
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of that dtype.
    """
    stored = tensor.detach().to(DTYPES[spec.dtype]).contiguous()
    if not all(map(math.isfinite, _find_extremes(stored))):
        beyond = all(map(math.isfinite, _find_extremes(tensor)))
        reason = f"values beyond the range of {spec.dtype}" if beyond else "NaN or infinity"
        raise NonFiniteTensorError(
            f"Tensor {quote(name)} holds {reason}, so it cannot be stored.",
            hint="Save with dtype='float32'." if beyond else _DIVERGED,
        )
    return stored


def check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors with which nothing can be computed.

    Args:
        tensors: by name, on any device.
        where: what holds them, for the errors.

    Raises:
        TensorDtypeError: not a dense tensor of floating-point numbers.
        TensorShapeError: no values at all.
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of float32.
        NegativeVarianceError: a running variance is below 0.
    """
    for name, tensor in tensors.items():
        found = _describe_kind(tensor)
        if found is not None:
            raise TensorDtypeError(
                f"Tensor {quote(name)} in {where} is {found}; expected a dense tensor of float32.",
                hint="Adapter.from_model(model, task=…) takes a trained model's own.",
            )
        if tensor.numel() == 0:
            raise TensorShapeError(
                f"Tensor {quote(name)} in {where} is {list(tensor.shape)}: no value."
            )
        smallest, largest = _find_extremes(tensor)
        if not max(-smallest, largest) <= _FLOAT32_MAX:
            beyond = math.isfinite(smallest) and math.isfinite(largest)
            reason = "values beyond the range of float32" if beyond else "NaN or infinity"
            raise NonFiniteTensorError(
                f"Tensor {quote(name)} in {where} holds {reason}.", hint=_DIVERGED
            )
        if name.endswith(".running_var") and smallest < 0:
            raise NegativeVarianceError(
                f"Tensor {quote(name)} in {where} holds {smallest:.3g}; a variance is never below "
                "0.",
                hint="Measure the statistics again, or keep the backbone's.",
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
        NegativeVarianceError: a running variance is below 0.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise CorruptTensorsError(
            f"'{where}' is not a valid safetensors file: {first_line(error)}.",
            hint="Fetch or save it again.",
        ) from error
    check_values(tensors, f"'{where}'")
    return {name: tensors[name].float() for name in specs}


def count_bytes(specs: Mapping[str, TensorSpec]) -> int:
    """Return how many bytes follow the header of a file that holds these tensors."""
    return sum(math.prod(spec.shape) * _SIZES[spec.dtype] for spec in specs.values())


def _describe_kind(value: object) -> str | None:
    """Say what is wrong with a value as a tensor of numbers, None if nothing is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if value.is_meta or value.layout != torch.strided:
        return "without memory (meta)" if value.is_meta else f"of layout {value.layout}"
    return None if value.dtype in _COMPUTED else f"of {value.dtype}"


def _find_extremes(tensor: Tensor) -> tuple[float, float]:
    """Return the smallest and the largest value, both NaN if one is."""
    # One pass, where isfinite needs several and a tensor beside it.
    smallest, largest = torch.aminmax(tensor.detach())
    return float(smallest), float(largest)


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
    if dtype != spec.dtype:
        raise TensorDtypeError(
            f"Tensor {quote(name)} in '{where}' is {describe(dtype)}; its config declares "
            f"{spec.dtype}."
        )
    if shape != spec.shape:
        raise TensorShapeError(
            f"Tensor {quote(name)} in '{where}' is [{', '.join(map(describe, shape[:5]))}]; its "
            f"config declares {list(spec.shape)}."
        )
