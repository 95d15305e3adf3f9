"""Manifests: one form in bytes, and nothing else accepted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.hub.files import StoredFile, digest_file
from gatehub.hub.folder.manifest import MAX_FILES, MAX_MANIFEST_BYTES, Manifest, now, parse_manifest
from gatehub.hub.protocol import AdapterSummary

SHA = "3f" * 32
MANIFEST = Manifest(
    parent=None,
    message="first\nlook: ä",
    created="2026-01-31T12:00:00.000001Z",
    files={
        "gates.safetensors": StoredFile(bytes=3, sha256=SHA),
        "config.json": StoredFile(bytes=0, sha256="0" * 64),
    },
    summary=AdapterSummary(
        task="birds", classes=2, backbone="resnet18.a1_in1k", gates="auto", accuracy=None
    ),
)
GOLDEN = (
    b'{"created":"2026-01-31T12:00:00.000001Z","files":{"config.json":{"bytes":0,"sha256":"'
    + b"0" * 64
    + b'"},"gates.safetensors":{"bytes":3,"sha256":"'
    + SHA.encode()
    + b'"}},"format":1,"message":"first\\nlook: \\u00e4","parent":null,"summary":{"accuracy":null,'
    b'"backbone":"resnet18.a1_in1k","classes":2,"gates":"auto","task":"birds"}}'
)


def changed(path: str, value: Any) -> bytes:
    """The golden manifest with one field, under its dotted path, set or (by ...) removed."""
    record = json.loads(GOLDEN)
    *parents, last = path.split("/")
    inner = record
    for key in parents:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(record).encode()


def test_golden_bytes() -> None:
    assert MANIFEST.encode() == GOLDEN
    assert parse_manifest(GOLDEN) == MANIFEST


def test_the_present_has_the_form_of_a_time() -> None:
    assert parse_manifest(changed("created", now())).created <= now()


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("files/..%2fx", {"bytes": 1, "sha256": SHA}, "is not the name of a file"),
        ("parent", "../../x", "its parent is not a commit id"),
        ("parent", SHA.upper(), "its parent is not a commit id"),
        ("parent", 7, "its parent is not a commit id"),
        ("parent", ..., "it does not have exactly the fields"),
        ("extra", 1, "it does not have exactly the fields"),
        ("format", 2, "it is of format 2, and this gatehub reads 1"),
        ("format", ..., "it is of format None"),
        ("created", "yesterday", "its time is not a time"),
        ("created", 0, "its time is not a time"),
        ("message", None, "its message is not a text"),
        ("message", "x" * 1_001, "its message is not a text of up to 1000"),
        ("message", "\x1b[2J", "its message holds control characters"),
        ("message", "\ud800", "its message holds control characters"),
        ("files", {}, "it does not name 1 to 64 files"),
        ("files", [], "it does not name 1 to 64 files"),
        ("files", {f"f{i}": {} for i in range(MAX_FILES + 1)}, "it does not name 1 to 64 files"),
        ("files/config.json", "x", "its entry 'config.json' does not have exactly"),
        ("files/config.json/mode", 1, "its entry 'config.json' does not have exactly"),
        ("files/config.json/bytes", -1, "does not hold a size and a SHA-256"),
        ("files/config.json/bytes", True, "does not hold a size and a SHA-256"),
        ("files/config.json/bytes", 1.0, "does not hold a size and a SHA-256"),
        ("files/config.json/sha256", "../../etc/passwd", "does not hold a size and a SHA-256"),
        ("files/config.json/sha256", SHA + "\n", "does not hold a size and a SHA-256"),
        ("summary", None, "its summary does not have exactly"),
        ("summary/task", 1, "its summary's task is not a printable text"),
        ("summary/task", "\x1b[31m", "its summary's task is not a printable text"),
        ("summary/gates", "x" * 301, "its summary's gates is not a printable text"),
        ("summary/classes", True, "its summary's classes are not a number"),
        ("summary/accuracy", 1.5, "its summary's accuracy is not a fraction"),
        ("summary/accuracy", True, "its summary's accuracy is not a fraction"),
        ("summary/accuracy", 10**400, "its summary's accuracy is not a fraction"),
    ],
)
def test_anything_else_is_refused(path: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_manifest(changed(path, value))


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/passwd", "a/b", "a\\b", "..", "", ".git", "C:x", "a\0b"]
)
def test_a_file_name_that_could_be_a_path_is_refused(name: str) -> None:
    record = json.loads(GOLDEN)
    record["files"][name] = {"bytes": 1, "sha256": SHA}
    with pytest.raises(ValueError, match="is not the name of a file"):
        parse_manifest(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "can't decode"),
        (b"[]", "it does not have exactly the fields"),
        (b"null", "it does not have exactly the fields"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"format":1,"format":1}', "it holds a key twice"),
        (GOLDEN[:-1], "Expecting"),
        (GOLDEN + b"{}", "Extra data"),
        (GOLDEN.replace(b'"accuracy":null', b'"accuracy":NaN'), "it holds NaN"),
        (GOLDEN.replace(b'"accuracy":null', b'"accuracy":1e999'), "accuracy is not a fraction"),
        (GOLDEN + b" " * MAX_MANIFEST_BYTES, "but may have 1000000"),
    ],
)
def test_what_is_not_a_manifest_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_manifest(data)


@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_another_manifest(position: int, byte: int) -> None:
    data = GOLDEN[:position] + bytes([byte]) + GOLDEN[position + 1 :]
    try:
        manifest = parse_manifest(data)
    except ValueError:
        return
    assert parse_manifest(manifest.encode()) == manifest


@pytest.mark.parametrize("make", [lambda: b"", lambda: b"abc", lambda: bytes(3_000_000)])
def test_digest_file(make: Callable[[], bytes], tmp_path: Path) -> None:
    data = make()
    (tmp_path / "file").write_bytes(data)

    file = digest_file(tmp_path / "file")

    assert file == StoredFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
