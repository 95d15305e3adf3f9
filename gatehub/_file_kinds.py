"""What a file is, by its name and its first bytes: enough to name it, never to trust it."""

from __future__ import annotations

import codecs
import re
import shlex
import stat
from pathlib import Path

from gatehub._pickles import is_pickle

_PROGRAMS = (
    *(".bat", ".cmd", ".com", ".dll", ".dylib", ".exe", ".jar", ".ps1"),
    *(".py", ".pyc", ".pyd", ".pyw", ".sh", ".so"),
)
_LIBRARY_VERSION = re.compile(r"(\.\d+)+$")

# A first line, today's or of git-lfs before it had that name, and lines of a key and a value.
_POINTER = re.compile(
    rb"(\xef\xbb\xbf)?version https://(git-lfs|hawser)\.github\.com/spec/\S+"
    rb"(\r?\n[a-z0-9.-]+ [^\r\n]+)*\s*"
)
# Its specification says less than 1,024; what extends it may write more.
MAX_POINTER_BYTES = 4_096
_HEAD_BYTES = 64
_MAX_SAFETENSORS_HEADER = 100_000_000

ONNX = "an ONNX model"
_BEGINNINGS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    ((b"PK\x03\x04",), "a zip archive or a PyTorch checkpoint"),
    (tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6)), "a pickle"),
    ((b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*"), "an image"),
    ((b"\x1f\x8b",), "a gzip archive"),
    ((b"\x89HDF\r\n",), "an HDF5 file"),
    ((b"\x93NUMPY",), "a numpy array"),
    ((b"%PDF",), "a PDF"),
)
# What follows the IR version (field 1) in an ONNX model: producer, version, domain, graph, opset.
_ONNX_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)


def may_run(name: str) -> bool:
    """Whether a file of that name runs when it is opened, read or imported in the usual way."""
    return is_pickle(name) or _LIBRARY_VERSION.sub("", name.lower()).endswith(_PROGRAMS)


def is_pointer(path: Path) -> bool:
    """Whether a regular file is what git checks out in place of a large one without git-lfs."""
    if path.stat().st_size > MAX_POINTER_BYTES:
        return False
    return is_pointer_text(path.read_bytes())


def is_pointer_text(content: bytes) -> bool:
    """Whether a file with that content is such a pointer."""
    return len(content) <= MAX_POINTER_BYTES and _POINTER.fullmatch(content) is not None


def describe_pointer(name: str) -> str:
    """Say that a file, called `name` in the sentence, is a pointer: one sentence for all files."""
    return (
        f"{name} is a git-lfs pointer and not the file itself: it was cloned without git-lfs. "
        "`git lfs pull` fetches the file."
    )


def advise_pull(folder: Path) -> str:
    """Say what to do about a pointer in a folder: one command line."""
    return f"Run: git lfs install && git -C {shlex.quote(str(folder))} lfs pull"


def describe_file(path: Path) -> str:
    """Say what a path leads to, such as "an ONNX model".

    Raises:
        OSError: nothing is there, or it may not be read.
        ValueError: no file can have that name.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    if not stat.S_ISREG(mode):  # opening a pipe would wait for its writer
        return "a device or a pipe"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        return "an empty file"
    if is_pointer(path):
        return "a git-lfs pointer"
    for beginnings, kind in _BEGINNINGS:
        if head.startswith(beginnings):
            return kind
    if _is_onnx(head) or path.suffix.lower() == ".onnx":
        return ONNX
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_SAFETENSORS_HEADER:
        return "a safetensors file"
    return _describe_text(head)


def _is_onnx(head: bytes) -> bool:
    # Protocol buffers have no magic number.
    return len(head) > 2 and head[0] == 0x08 and head[1] < 32 and head[2] in _ONNX_FIELDS


def _describe_text(head: bytes) -> str:
    try:
        # It ends within a character, perhaps.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return "a file of another kind"
    return "JSON" if text.lstrip().startswith(("{", "[")) else "text"
