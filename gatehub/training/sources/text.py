"""Text files that lie beside images, in the encodings that can be told for certain."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path

from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer
from gatehub.errors import DataError

_UTF_8 = "utf-8-sig"  # with a byte-order mark or without


def read_text(file: Path, what: str) -> str:
    """Read a text in UTF-8, or in UTF-16 that begins with a byte-order mark.

    No 8-bit encoding is guessed: each of them decodes every file, and most wrongly.

    Args:
        file: of text.
        what: what errors call it, such as "table".

    Returns:
        The text, its line breaks as they are.

    Raises:
        DataError: it cannot be read, or is in another encoding.
    """
    try:
        if is_pointer(file):
            raise DataError(describe_pointer(f"'{file}'"), hint=advise_pull(file.parent))
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"The {what} {file} cannot be read: {error.strerror}.") from error
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if marked else _UTF_8)
    except UnicodeDecodeError as error:
        if marked:
            raise DataError(
                f"The {what} {file} begins as UTF-16 text, but is none: {error.reason}.",
                hint="Save it anew, as UTF-8.",
            ) from error
        if b"\0" in data:
            raise _no_text(file, what) from error
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"The {what} {file} is not UTF-8 text: line {line} has the byte "
            f"0x{error.object[error.start]:02x}. It may be in an 8-bit encoding, such as Latin-1 "
            "or Windows-1252, which cannot be told for certain.",
            hint=_advise_to_convert(file),
        ) from error
    if "\0" in text:
        raise _no_text(file, what)
    return text


def _no_text(file: Path, what: str) -> DataError:
    return DataError(
        f"The {what} {file} holds NUL bytes, so it is no text, or UTF-16 without the byte-order "
        "mark at its beginning.",
        hint="Save it as text in UTF-8.",
    )


def _advise_to_convert(file: Path) -> str:
    old, new = (
        shlex.quote(str(path)) for path in (file, file.with_name(f"{file.stem}-utf8{file.suffix}"))
    )
    return (
        'Save it as UTF-8 (in Excel as "CSV UTF-8"), or convert it: '
        f"iconv -f WINDOWS-1252 -t UTF-8 {old} > {new}"
    )
