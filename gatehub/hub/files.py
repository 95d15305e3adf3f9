"""Whether files hold the bytes that a hub promises, and how long they may be at most."""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gatehub._pickles import is_pickle
from gatehub.errors import HubError, HubIntegrityError

# The adapter format's own limits, known here without loading torch; a test compares them.
MAX_FILE_BYTES: Mapping[str, int] = {
    "config.json": 4_000_000,
    "gates.safetensors": 2**31 + 1_000_008,
    "README.md": 1_000_000,
    "training.jsonl": 2**26,
    "training.png": 2**26,
    "gates.png": 2**26,
}

_CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """Size and SHA-256 (64 hexadecimal digits) of a file's bytes."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GitFile:
    """Size and git's SHA-1 (40 hexadecimal digits) of a file that a Hub keeps in git itself."""

    bytes: int
    oid: str


KnownFile = StoredFile | GitFile


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 as written here, and so also a commit id."""
    return _DIGEST.fullmatch(text) is not None


def open_regular(path: str | Path, *, within: int | None = None) -> BinaryIO | None:
    """Open a file for reading, unless it is a link, a folder or a pipe.

    That holds for the file that is read, whatever takes its name meanwhile. Windows cannot open
    without following links; there, what was opened is compared with what has the name.

    Args:
        path: of the file.
        within: a folder's descriptor that the path begins at.

    Returns:
        None for what is no regular file.

    Raises:
        OSError: nothing is there, or it may not be read.
    """
    # A named pipe would block the open, and so the process, for good.
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags), dir_fd=within)
    except OSError:
        if stat.S_ISREG(os.stat(path, dir_fd=within, follow_symlinks=False).st_mode):
            raise
        return None
    try:
        found = os.fstat(descriptor)
        regular = stat.S_ISREG(found.st_mode)
        if not hasattr(os, "O_NOFOLLOW"):
            named = os.stat(path, dir_fd=within, follow_symlinks=False)
            regular = regular and os.path.samestat(named, found)
        return os.fdopen(os.dup(descriptor), "rb") if regular else None
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> StoredFile:
    """Read a file once, for its size and digest."""
    with path.open("rb") as stream:
        return digest_stream(stream)


def digest_stream(
    source: BinaryIO, copy: BinaryIO | None = None, *, max_bytes: float = math.inf
) -> StoredFile:
    """Read a stream to its end, for the size and digest of what was read.

    Args:
        source: the stream.
        copy: what is read is written there.
        max_bytes: of more than these, one chunk more is read and nothing after it.
    """
    digest = hashlib.sha256()
    size = 0
    while size <= max_bytes and (chunk := source.read(_CHUNK_BYTES)):
        digest.update(chunk)
        size += len(chunk)
        if copy is not None:
            copy.write(chunk)
    return StoredFile(bytes=size, sha256=digest.hexdigest())


def changed_meanwhile(path: Path) -> HubError:
    """Return the refusal of a file that is no longer what was verified."""
    return HubError(f"{path} changed while it was pushed.", hint="Push it again.")


def is_same(path: Path, known: KnownFile, digest: StoredFile | None = None) -> bool:
    """Whether a file has exactly the bytes that are known of it.

    Args:
        path: the file.
        known: what is known.
        digest: the file's own size and SHA-256, where somebody has just read it.
    """
    size = path.stat().st_size
    if size != known.bytes:
        return False
    if isinstance(known, StoredFile):
        return (digest or digest_file(path)) == known
    sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    sha1.update(path.read_bytes())
    return sha1.hexdigest() == known.oid


def looks_like(folder: Path, files: Mapping[str, KnownFile]) -> bool:
    """Whether a folder holds exactly these files, by their names and sizes.

    Names that begin with a dot do not count: desktops leave such files wherever they look.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
        names = {name for name in os.listdir(folder) if not name.startswith(".")}
        found = {name: (folder / name).lstat() for name in names}
    except FileNotFoundError:
        return False
    return found.keys() == files.keys() and all(
        stat.S_ISREG(found[name].st_mode) and found[name].st_size == known.bytes
        for name, known in files.items()
    )


def prove(folder: Path, files: Mapping[str, KnownFile]) -> dict[str, StoredFile] | None:
    """Read a folder that should hold exactly these files, each with exactly these bytes.

    Returns:
        The size and SHA-256 of each file; None if the folder holds anything else.
    """
    if not looks_like(folder, files):
        return None
    proven = {}
    try:
        for name, known in files.items():
            proven[name] = digest_file(folder / name)
            if not is_same(folder / name, known, proven[name]):
                return None
    except FileNotFoundError:
        return None
    return proven


def select_files(
    name: str, files: Mapping[str, KnownFile]
) -> tuple[dict[str, KnownFile], list[str]]:
    """Split what a commit holds into the files of an adapter and everything else.

    Args:
        name: what is pulled, for the error.
        files: what the hub says the commit holds.

    Returns:
        The adapter's files, config.json first, and the names of the others; files whose name
        begins with a dot are git's own and in neither.

    Raises:
        HubIntegrityError: a file is longer than any such file of an adapter.
    """
    wanted = {file: files[file] for file in MAX_FILE_BYTES if file in files}
    for file, known in wanted.items():
        if known.bytes > MAX_FILE_BYTES[file]:
            raise HubIntegrityError(
                f"{file} of {name} has {known.bytes:,} bytes, and no adapter's has more than "
                f"{MAX_FILE_BYTES[file]:,}; nothing was fetched."
            )
    return wanted, sorted(f for f in files if f not in wanted and not f.startswith("."))


def describe_others(name: str, others: list[str]) -> str:
    """One sentence about files that were left where they are."""
    pickles = [file for file in others if is_pickle(file)]
    listed = ", ".join(repr(file)[:100] for file in (pickles or others)[:5])
    if pickles:
        return f"{name} also holds {listed}, a pickle, which can run code; it was not fetched."
    return f"{name} also holds {listed}, which no adapter has; it was not fetched."
