"""What a commit of a folder hub says: which files, on top of what, by which words.

A commit id is the SHA-256 of the manifest's bytes, and the manifest names the SHA-256 of
every file. So whoever has a commit id can prove every byte under it.

    {"created": "2026-01-31T12:00:00.000000Z",
     "files": {"config.json": {"bytes": 1234, "sha256": "…"}, …},
     "format": 1,
     "message": "…",
     "parent": "…" or null,
     "summary": {"accuracy": 0.98 or null, "backbone": "…", "classes": 10, "gates": "…",
                 "task": "…"}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import Any, NoReturn

from gatehub.hub.files import StoredFile, is_digest
from gatehub.hub.names import check_file_name
from gatehub.hub.protocol import MAX_FIELD_CHARACTERS, AdapterSummary, format_time

FORMAT = 1
MAX_MANIFEST_BYTES = 1_000_000
MAX_FILES = 64
MAX_MESSAGE_CHARACTERS = 1_000

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One commit.

    Attributes:
        parent: the commit it was built on, None for the first of a branch.
        message: what the pusher said.
        created: UTC, ISO 8601 with microseconds and "Z", by the pusher's clock.
        files: file name to size and digest.
        summary: what a listing shows.
    """

    parent: str | None
    message: str
    created: str
    files: Mapping[str, StoredFile]
    summary: AdapterSummary

    def encode(self) -> bytes:
        """The one form in bytes, whose SHA-256 is the commit id."""
        record = {
            "format": FORMAT,
            "parent": self.parent,
            "message": self.message,
            "created": self.created,
            "files": {name: asdict(file) for name, file in self.files.items()},
            "summary": asdict(self.summary),
        }
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def now() -> str:
    """The present time in the form of `Manifest.created`."""
    return format_time(datetime.now(timezone.utc))


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest that anybody may have written.

    Raises:
        ValueError: what about it is not as it must be; the caller knows where it lies.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, but may have {MAX_MANIFEST_BYTES}")
    try:
        record = json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if isinstance(record, dict) and record.get("format") != FORMAT:
        raise ValueError(
            f"it is of format {record.get('format')!r}, and this gatehub reads {FORMAT}"
        )
    record = _fields(record, Manifest, "it", "format")
    parent, files = record["parent"], record["files"]
    if parent is not None and not (isinstance(parent, str) and is_digest(parent)):
        raise ValueError("its parent is not a commit id")
    if not (isinstance(record["created"], str) and _TIME.fullmatch(record["created"])):
        raise ValueError("its time is not a time")
    message = record["message"]
    if not (isinstance(message, str) and len(message) <= MAX_MESSAGE_CHARACTERS):
        raise ValueError(f"its message is not a text of up to {MAX_MESSAGE_CHARACTERS} characters")
    if not message.replace("\n", "").isprintable():  # it is shown in terminals
        raise ValueError("its message holds control characters")
    if not (isinstance(files, dict) and 0 < len(files) <= MAX_FILES):
        raise ValueError(f"it does not name 1 to {MAX_FILES} files")
    return Manifest(
        parent=parent,
        message=message,
        created=record["created"],
        files={check_file_name(name): _file(name, entry) for name, entry in files.items()},
        summary=_summary(record["summary"]),
    )


def _file(name: str, value: object) -> StoredFile:
    entry = _fields(value, StoredFile, f"its entry {name!r}")
    size, digest = entry["bytes"], entry["sha256"]
    if not (_is_count(size) and isinstance(digest, str) and is_digest(digest)):
        raise ValueError(f"its entry {name!r} does not hold a size and a SHA-256")
    return StoredFile(bytes=size, sha256=digest)


def _summary(value: object) -> AdapterSummary:
    summary = _fields(value, AdapterSummary, "its summary")
    for key in ("task", "backbone", "gates"):
        text = summary[key]
        if not (isinstance(text, str) and text.isprintable() and len(text) <= MAX_FIELD_CHARACTERS):
            raise ValueError(
                f"its summary's {key} is not a printable text of up to "
                f"{MAX_FIELD_CHARACTERS} characters"
            )
    accuracy = summary["accuracy"]
    if accuracy is not None and not (type(accuracy) in (int, float) and 0 <= accuracy <= 1):
        raise ValueError("its summary's accuracy is not a fraction")
    if not _is_count(summary["classes"]):
        raise ValueError("its summary's classes are not a number")
    return AdapterSummary(**summary)


def _fields(value: object, record: type, what: str, *more: str) -> dict[str, Any]:
    """Check that a value is a JSON object with exactly the fields of a dataclass."""
    names = {*(field.name for field in fields(record)), *more}
    if not isinstance(value, dict) or value.keys() != names:
        raise ValueError(f"{what} does not have exactly the fields {', '.join(sorted(names))}")
    return value


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # a bool is an int to isinstance


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("it holds a key twice")
    return record


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")
