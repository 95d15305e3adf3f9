"""Tensors in requests and answers: as JSON, or as bytes behind it.

A body with binary tensors is JSON, as long as the header `Inference-Header-Content-Length` says,
and then each tensor's `binary_data_size` bytes, in the order in which the JSON names them (Triton's
binary data extension). FP32 is little-endian and row-major; BYTES is 4 bytes of length,
little-endian, and that many bytes, for each element. In JSON a BYTES element is base64.

Nothing is made before the sizes that it claims are held against the bytes that are there.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from reprlib import repr as shorten

import numpy as np
import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.errors import RequestError
from gatehub.server.classification import decode_base64

HEADER = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")


def split_body(body: bytes, lengths: Sequence[str]) -> tuple[object, memoryview]:
    """Divide a body into its JSON and the bytes behind it.

    Args:
        body: as sent, and inflated.
        lengths: the values of `HEADER`; without one, all of the body is JSON.

    Raises:
        RequestError: the header is no length within the body, or the JSON is none.
    """
    length = len(body)
    if lengths:
        told = lengths[0]
        if len(lengths) > 1 or not told.isdecimal() or not told.isascii() or len(told) > 12:
            raise RequestError(
                f"The header {HEADER} is {quote(', '.join(lengths), 40)}; expected one whole "
                "number, the bytes of JSON in the body."
            )
        length = int(told)
        if length > len(body):
            raise RequestError(
                f"The header {HEADER} is {length}, and the body has {len(body)} bytes; expected at "
                "most that."
            )
    view = memoryview(body)
    try:
        return json.loads(bytes(view[:length])), view[length:]
    except (ValueError, RecursionError):
        raise RequestError(
            f"The first {length} bytes of the body are not valid JSON.",
            hint=f"With binary tensors, {HEADER} says how many bytes of the body are JSON.",
        ) from None


def take_binary(
    tensor: Mapping[str, object], name: str, rest: memoryview
) -> tuple[memoryview | None, memoryview]:
    """Take a tensor's bytes from those behind the JSON.

    Args:
        tensor: what the JSON says of it.
        name: of it, for errors.
        rest: the bytes that no tensor before has taken.

    Returns:
        Its bytes, or None if its values are in the JSON, and what is left.

    Raises:
        RequestError: it has both or neither, or more bytes than there are.
    """
    parameters = tensor.get("parameters") or {}
    if not isinstance(parameters, dict) or not set(parameters) <= {"binary_data_size"}:
        raise RequestError(
            f"The parameters of input {name} are {shorten(parameters)}; expected binary_data_size "
            "or none.",
            hint="Tensors travel in the body; there is no shared memory.",
        )
    size = parameters.get("binary_data_size")
    if (size is None) == ("data" not in tensor):
        raise RequestError(
            f"Input {name} has {'neither' if size is None else 'both'} 'data' and "
            "binary_data_size; expected one of them."
        )
    if size is None:
        return None, rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise RequestError(
            f"binary_data_size of input {name} is {shorten(size)}; {len(rest)} bytes are left in "
            "the body."
        )
    return rest[:size], rest[size:]


def check_shape(shape: object, name: str, form: Sequence[str], *, most: int) -> tuple[int, ...]:
    """Return a tensor's shape.

    Args:
        shape: anything a client may have sent.
        name: of the tensor, for errors.
        form: its dimensions' names; the first counts images.
        most: images that are taken at once.

    Raises:
        RequestError: other dimensions, or more images.
    """
    if (
        not isinstance(shape, list)
        or len(shape) != len(form)
        or not all(type(extent) is int and extent >= 1 for extent in shape)
    ):
        raise RequestError(
            f"Input {name} has shape {shorten(shape)}; expected [{', '.join(form)}], whole numbers "
            "of at least 1."
        )
    if shape[0] > most:
        raise RequestError(
            f"Input {name} has {shorten(shape[0])} images; at most {most} are taken in a request.",
            hint="Send the others in requests of their own; the server puts them together.",
        )
    return tuple(shape)


def read_floats(data: object, shape: Sequence[int], name: str) -> Tensor:
    """Make a tensor of FP32 values.

    Args:
        data: its bytes, or what the JSON has: a flat list, or lists of lists as the shape says.
        shape: that it is to have.
        name: of it, for errors.

    Returns:
        The tensor, float32; its values may be anything.

    Raises:
        RequestError: another number of values, or what is no number.
    """
    count = math.prod(shape)
    if isinstance(data, memoryview):
        _check_length(4 * count, data, name, shape)
        # A copy: torch wants memory that may be written.
        array = np.frombuffer(data, dtype="<f4").astype(np.float32)
        return torch.from_numpy(array.reshape(shape))
    values = _flatten(data, shape, name)
    if not all(type(value) is float or type(value) is int for value in values):
        raise RequestError(f"Input {name} has data that are no numbers; expected FP32.")
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise RequestError(f"Input {name} has numbers beyond the range of FP32.") from None
    return torch.from_numpy(array.reshape(shape))


def read_elements(data: object, shape: Sequence[int], name: str) -> list[bytes]:
    """Return the elements of a BYTES tensor; arguments as for `read_floats`.

    Raises:
        RequestError: another number of elements, lengths that do not fit, or what is no base64.
    """
    if not isinstance(data, memoryview):
        return [_read_text(value, name) for value in _flatten(data, shape, name)]
    elements = []
    for number in range(math.prod(shape)):
        length = _LENGTH.unpack_from(data)[0] if len(data) >= 4 else None
        if length is None or length > len(data) - 4:
            raise RequestError(
                f"Element {number} of input {name} ends beyond its binary_data_size; expected 4 "
                "bytes of length, little-endian, and that many bytes."
            )
        elements.append(bytes(data[4 : 4 + length]))
        data = data[4 + length :]
    if len(data):
        raise RequestError(
            f"Input {name} has {len(data)} bytes after its last element; its shape is "
            f"{list(shape)}."
        )
    return elements


def write_elements(elements: Iterable[bytes]) -> bytes:
    """Return the bytes of a BYTES tensor."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def write_floats(values: Tensor) -> bytes:
    """Return the bytes of an FP32 tensor."""
    return values.numpy().astype("<f4").tobytes()


def _check_length(expected: int, data: memoryview, name: str, shape: Sequence[int]) -> None:
    if len(data) != expected:
        raise RequestError(
            f"Input {name} has {len(data)} bytes; expected {shorten(expected)}, 4 for each value "
            f"of {shorten(list(shape))}."
        )


def _flatten(data: object, shape: Sequence[int], name: str) -> list[object]:
    """Return the values of a flat list, or of one that is nested as the shape says."""
    values = data
    if isinstance(data, list) and data and isinstance(data[0], list) and len(shape) > 1:
        rows: list[object] = [data]
        for extent in shape:
            if not all(isinstance(row, list) and len(row) == extent for row in rows):
                raise RequestError(f"The lists of input {name} are not of shape {list(shape)}.")
            rows = [value for row in rows if isinstance(row, list) for value in row]
        values = rows
    if not isinstance(values, list) or len(values) != math.prod(shape):
        found = f"{len(values)} values" if isinstance(values, list) else shorten(values)
        raise RequestError(
            f"'data' of input {name} has {found}; expected a list of as many as its shape "
            f"{shorten(list(shape))} has."
        )
    return values


def _read_text(value: object, name: str) -> bytes:
    try:
        if isinstance(value, str):
            return decode_base64(value)
    except ValueError:
        pass
    raise RequestError(
        f"Input {name} has data in JSON that are not base64.",
        hint="Send encoded images as base64 in JSON, or as binary data.",
    )
