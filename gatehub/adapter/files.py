"""An adapter's folder: written whole or not at all, read only when every byte is accounted for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gatehub._disk import publish_folder
from gatehub._text import quote, shorten
from gatehub.adapter._declared import check_declared
from gatehub.adapter._tensors import (
    PREFIX_BYTES,
    check_header,
    dump_tensors,
    load_tensors,
    read_header_length,
    round_tensor,
)
from gatehub.adapter.card import render_card
from gatehub.adapter.coding.packed import FLOATS, TensorSpec, choose_spec
from gatehub.adapter.coding.stored import StoredAs, list_stored, parse_stored
from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.folder import (
    ADAPTER_FILES,
    CARD_FILE,
    CONFIG_FILE,
    OPTIONAL_FILES,
    TENSORS_FILE,
    check_place,
    list_files,
)
from gatehub.errors import (
    AdapterFormatError,
    ConfigError,
    CorruptTensorsError,
    DigestMismatchError,
    GatehubError,
    MissingFileError,
    TensorDtypeError,
    UnexpectedFileError,
)

MAX_CONFIG_BYTES = 4_000_000
MAX_ATTACHMENT_BYTES = 2**26


def verify_adapter(folder: Path, *, proven: Mapping[str, str] | None = None) -> AdapterConfig:
    """Read every byte of an adapter's folder and return its config; see `read_adapter`."""
    return read_adapter(folder, proven=proven)[0]


def read_adapter(
    folder: Path, *, proven: Mapping[str, str] | None = None
) -> tuple[AdapterConfig, dict[str, Tensor]]:
    """Read and check an adapter's folder: its config, and its tensors as float32.

    Files that are not the adapter's are left alone, see `list_files`. The card may be edited by
    hand, so it must be there but has no digest.

    Args:
        folder: where it lies.
        proven: the SHA-256 of files by name, from who has just hashed them: they are compared with
            the config and not computed again.

    Raises:
        AdapterFormatError: one subclass for each way in which a folder can be unsound.
    """
    try:
        present = list_files(folder)
        config_path, tensors_path = folder / CONFIG_FILE, folder / TENSORS_FILE
        text = _read_file(config_path, MAX_CONFIG_BYTES, ConfigError)
        config = _read_config(text, str(config_path))
        _check_attachments(config, present, folder)
        data = _read_tensor_file(tensors_path, config)
        # First of all: what the config promises is what is judged.
        _check_digest(tensors_path, data, config, proven or {})
        tensors = load_tensors(data, config, where=str(tensors_path))
        for name in sorted(config.files.keys() - {TENSORS_FILE}):
            content = _read_file(folder / name, MAX_ATTACHMENT_BYTES, UnexpectedFileError)
            _check_digest(folder / name, content, config, proven or {})
    except GatehubError:  # some of them are OSErrors too
        raise
    except OSError as error:
        raise AdapterFormatError(
            f"'{folder}' cannot be read: {error.strerror or error}.", hint="Check the path."
        ) from error
    return config, tensors


def write_adapter(
    folder: Path,
    config: AdapterConfig,
    tensors: Mapping[str, Tensor],
    *,
    dtype: str,
    attachments: Mapping[str, bytes],
) -> Path:
    """Write an adapter's folder beside its place, sync it, and rename it there.

    Raises:
        AdapterExistsError: something that is not an adapter is there.
        NonFiniteTensorError: a value is NaN, infinite, or beyond the range of `dtype`.
        TensorDtypeError: no such dtype.
        UnexpectedFileError: an attachment that the format does not know, or that is too long.
        AdapterFormatError: the adapter contradicts itself, so it could not be read again.
        OSError: the disk refuses; what was there is there still.
    """
    check_place(folder)
    for name, content in attachments.items():
        _check_attachment(name, content)
    specs = _declare(config, tensors, dtype)
    data = dump_tensors(tensors, config.with_files(specs, {}))
    contents = {TENSORS_FILE: data} | dict(sorted(attachments.items()))
    stored = config.with_files(
        specs, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    )
    contents[CONFIG_FILE] = stored.to_json()
    _read_config(contents[CONFIG_FILE], f"The config for '{folder}'")
    contents[CARD_FILE] = render_card(stored, adapter_bytes=len(data)).encode()
    publish_folder(folder, contents)
    return folder


def attach_file(folder: Path, name: str, content: bytes) -> AdapterConfig:
    """Add an attachment to a saved adapter, which stays as it is otherwise, and return its config.

    Raises:
        AdapterExistsError: the folder holds other files, which would be lost.
        UnexpectedFileError: the format does not know the attachment, or it is too long.
        AdapterFormatError: the folder is not a sound adapter.
        OSError: the disk refuses; what was there is there still.
    """
    config = verify_adapter(folder)
    check_place(folder)
    _check_attachment(name, content)
    present = {own: folder / own for own in ADAPTER_FILES if (folder / own).is_file()}
    contents = {own: path.read_bytes() for own, path in present.items()} | {name: content}
    files = {**config.files, name: hashlib.sha256(content).hexdigest()}
    first = {TENSORS_FILE: files[TENSORS_FILE]}
    config = config.with_files(config.tensors, first | dict(sorted(files.items())))
    publish_folder(folder, {**contents, CONFIG_FILE: config.to_json()})
    return config


def check_dtype(dtype: str) -> None:
    """Refuse a dtype in which adapters are not stored.

    Raises:
        TensorDtypeError: no such dtype.
    """
    _parse_dtype(dtype)


def round_tensors(
    config: AdapterConfig, tensors: Mapping[str, Tensor], dtype: str
) -> dict[str, Tensor]:
    """Return the tensors as float32, with the values that storing them leaves.

    Raises:
        TensorDtypeError: no such dtype.
        NonFiniteTensorError: a value is beyond the range of `dtype`.
    """
    specs, rests = _declare(config, tensors, dtype), config.layout.gate_rests()
    return {
        name: round_tensor(tensor, specs[name], name, rest=rests.get(name, 0.0))
        for name, tensor in tensors.items()
    }


def count_tensor_bytes(config: AdapterConfig, tensors: Mapping[str, Tensor], dtype: str) -> int:
    """Return how many bytes gates.safetensors has once it is saved.

    Raises:
        TensorDtypeError: no such dtype.
        NonFiniteTensorError: a value is beyond the range of `dtype`.
    """
    specs = _declare(config, tensors, dtype)
    return len(dump_tensors(tensors, config.with_files(specs, {})))


def stored_dtypes(config: AdapterConfig) -> dict[str, torch.dtype]:
    """Return the smallest dtype that holds each tensor as its file does."""
    return {name: FLOATS.get(spec.dtype, torch.float32) for name, spec in config.tensors.items()}


def _check_attachment(name: str, content: bytes) -> None:
    if name not in OPTIONAL_FILES or len(content) > MAX_ATTACHMENT_BYTES:
        raise UnexpectedFileError(
            f"{quote(name)} of {len(content):,} bytes is not an attachment; expected one of "
            f"{', '.join(OPTIONAL_FILES)}, at most {MAX_ATTACHMENT_BYTES:,} bytes."
        )


def _read_file(path: Path, limit: int, too_long: type[AdapterFormatError]) -> bytes:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise too_long(f"'{path}' has {size:,} bytes; at most {limit:,} are read.")
        return file.read(size)


def _read_config(data: bytes, where: str) -> AdapterConfig:
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"{where} has {len(data):,} bytes; at most {MAX_CONFIG_BYTES:,} are read."
        )
    config = AdapterConfig.from_json(data, where=where)
    check_declared(config, where)
    return config


def _check_attachments(config: AdapterConfig, present: set[str], folder: Path) -> None:
    if TENSORS_FILE not in config.files:
        raise ConfigError(f"'{folder / CONFIG_FILE}' has no digest of {TENSORS_FILE}.")
    for name in config.files:
        if name not in (TENSORS_FILE, *OPTIONAL_FILES):
            raise ConfigError(
                f"'{folder / CONFIG_FILE}' lists a digest of {quote(name)}, which has none."
            )
        if name not in present:
            raise MissingFileError(f"'{folder}' lacks '{name}', which its config lists.")
    for name in OPTIONAL_FILES:
        if name in present and name not in config.files:
            raise UnexpectedFileError(f"'{folder}' holds '{name}', which its config does not list.")


def _read_tensor_file(path: Path, config: AdapterConfig) -> bytes:
    with path.open("rb") as file:
        prefix = file.read(PREFIX_BYTES)
        length = read_header_length(prefix, str(path))
        header = file.read(length)
        if len(header) < length:
            raise CorruptTensorsError(
                f"'{path}' is truncated: its header needs {length:,} bytes, and {len(header):,} "
                "follow."
            )
        check_header(header, config, where=str(path))
        size = os.fstat(file.fileno()).st_size
        expected = len(prefix) + len(header) + sum(spec.bytes for spec in config.tensors.values())
        if size != expected:
            kind = "truncated" if size < expected else "overlong"
            raise CorruptTensorsError(
                f"'{path}' is {kind}: it has {size:,} bytes, and its tensors need {expected:,}.",
                hint="Fetch or save it again.",
            )
        return prefix + header + file.read(expected)


def _check_digest(
    path: Path, data: bytes, config: AdapterConfig, proven: Mapping[str, str]
) -> None:
    found = proven.get(path.name) or hashlib.sha256(data).hexdigest()
    expected = config.files[path.name]
    if found != expected:
        raise DigestMismatchError(
            f"'{path}' has SHA-256 {found[:12]}…, but its config names {expected[:12]}….",
            hint="A byte changed on the way; fetch it again.",
        )


def _declare(
    config: AdapterConfig, tensors: Mapping[str, Tensor], dtype: str
) -> dict[str, TensorSpec]:
    stored, rests = _parse_dtype(dtype), config.layout.gate_rests()
    return {
        name: choose_spec(tensor, stored.gates, rest=rests[name])
        if name in rests
        else TensorSpec(dtype=stored.value_dtype(name), shape=tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def _parse_dtype(dtype: str) -> StoredAs:
    stored = parse_stored(dtype) if isinstance(dtype, str) else None
    if stored is None:
        raise TensorDtypeError(
            f"Gates are stored as {list_stored()}, not as {shorten(repr(dtype))}."
        )
    return stored
