"""Ways to break an adapter's folder, one thing at a time, for tables of what must be refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gatehub.adapter import Adapter, verify_adapter
from gatehub.errors import AdapterFormatError
from tests.adapter.sample import CONFIG, GOLDEN, TENSORS

Change = Callable[[Path], object]
Edit = Callable[[Any], object]


@dataclass(frozen=True)
class Broken:
    """One broken adapter.

    Args:
        name: what is wrong with it.
        change: makes it wrong, in a folder that holds the golden adapter.
        error: the exact class that it earns.
        match: a pattern in the error's text.
    """

    name: str
    change: Change
    error: type[AdapterFormatError]
    match: str

    def __str__(self) -> str:
        return self.name


def assert_refused(broken: Broken, tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "adapter")
    assert Adapter.load(folder).task == "fruit"  # it is sound until it is broken
    broken.change(folder)
    for read in (Adapter.load, verify_adapter):
        with pytest.raises(AdapterFormatError, match=broken.match) as caught:
            read(folder)
        assert type(caught.value) is broken.error
        assert len(str(caught.value)) < 1_000
        assert str(caught.value).isprintable()


def copy_golden(folder: Path) -> Path:
    return Path(shutil.copytree(GOLDEN, folder, ignore=shutil.ignore_patterns(".*")))


def put(name: str, data: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(data)


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Put something else in a file's place."""
    return in_turn(remove(name), lambda folder: make(folder / name))


def resize(name: str, size: int) -> Change:
    """Cut a file off, or lengthen it by zeros that take no space."""

    def change(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return change


def in_turn(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def attach(then: Change) -> Change:
    """Break an adapter that has a sound training.png."""
    digest = hashlib.sha256(b"picture").hexdigest()
    listed = assign("files", "training.png", value=digest)
    return in_turn(put("training.png", b"picture"), listed, then)


def config(edit: Edit) -> Change:
    """Edit the parsed config."""

    def change(folder: Path) -> None:
        found = json.loads((folder / CONFIG).read_bytes())
        edit(found)
        (folder / CONFIG).write_text(json.dumps(found), "utf-8")

    return change


def assign(*path: str | int, value: object) -> Change:
    """Give a field of the config another value."""
    return config(lambda found: _assign(found, path, value))


def drop(*path: str | int) -> Change:
    """Take a field out of the config."""
    return config(lambda found: _drop(found, path))


def config_text(old: str, new: str) -> Change:
    """Replace characters of the config, which stand there once."""

    def change(folder: Path) -> None:
        found = (folder / CONFIG).read_text("utf-8")
        assert found.count(old) == 1, old
        (folder / CONFIG).write_bytes(found.replace(old, new).encode())

    return change


def file_bytes(edit: Callable[[bytes], bytes]) -> Change:
    """Edit the tensor file, and give the config the digest that fits."""

    def change(folder: Path) -> None:
        data = edit((folder / TENSORS).read_bytes())
        (folder / TENSORS).write_bytes(data)
        assign("files", TENSORS, value=hashlib.sha256(data).hexdigest())(folder)

    return change


def header_bytes(edit: Callable[[bytes], bytes]) -> Change:
    """Edit the bytes of the tensor file's header."""

    def change(data: bytes) -> bytes:
        header, body = split(data)
        changed = edit(header)
        return len(changed).to_bytes(8, "little") + changed + body

    return file_bytes(change)


def header_text(old: str, new: str) -> Change:
    """Replace characters of the tensor file's header, which stand there once."""

    def change(header: bytes) -> bytes:
        assert header.decode().count(old) == 1, old
        return header.decode().replace(old, new).encode()

    return header_bytes(change)


def header(edit: Edit) -> Change:
    """Edit the parsed header of the tensor file."""

    def change(data: bytes) -> bytes:
        found = json.loads(data)
        edit(found)
        return json.dumps(found).encode()

    return header_bytes(change)


def entry(field: str, value: object, *, tensor: str = "conv1.gate") -> Change:
    """Give a tensor another dtype, shape or offsets in the tensor file's header."""
    return header(lambda found: _assign(found, (tensor, field), value))


def numbers(tensor: str, data: bytes) -> Change:
    """Overwrite the first bytes of a tensor."""

    def change(file: bytes) -> bytes:
        found, body = split(file)
        start = len(file) - len(body) + json.loads(found)[tensor]["data_offsets"][0]
        return file[:start] + data + file[start + len(data) :]

    return file_bytes(change)


def split(file: bytes) -> tuple[bytes, bytes]:
    """The header of a safetensors file, and the bytes behind it."""
    length = int.from_bytes(file[:8], "little")
    return file[8 : 8 + length], file[8 + length :]


def _assign(value: Any, path: tuple[str | int, ...], new: object) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = new


def _drop(value: Any, path: tuple[str | int, ...]) -> None:
    for step in path[:-1]:
        value = value[step]
    del value[path[-1]]
