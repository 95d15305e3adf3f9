"""What strangers wrote, made fit to be shown: names, files and other programs' messages."""

from __future__ import annotations

ECHO_CHARACTERS = 200


def printable(text: str) -> str:
    """Return a text in which nothing commands a terminal, hides, or cannot be encoded.

    Control characters, line breaks, marks that turn the direction of writing and lone surrogates
    are written as escapes, such as \\x1b; bytes of a path that are no text as themselves, \\xff.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python stands in for a byte
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def shorten(text: str, limit: int = ECHO_CHARACTERS) -> str:
    """Return a printable text in one line of at most `limit` characters, cut with "…"."""
    # A megabyte of what will be cut is not looked through.
    line = printable(" ".join(text[: 8 * limit].split()))
    return line if len(line) <= limit and len(text) <= 8 * limit else f"{line[: limit - 1]}…"


def quote(text: object, limit: int = ECHO_CHARACTERS) -> str:
    """Return what a stranger wrote in quotation marks, for an error message; see `shorten`.

    What is not a text is shown by its type, such as <NoneType>.
    """
    return f"'{shorten(text, limit)}'" if isinstance(text, str) else f"<{type(text).__name__}>"


def first_line(error: BaseException) -> str:
    """Return what another library's error says, in one line without a full stop."""
    return shorten(str(error)).rstrip(". ") or type(error).__name__
