"""Answers as gzip or deflate, for clients that ask for it."""

from __future__ import annotations

import zlib

# Below, it costs more than it saves.
_WORTH_BYTES = 500
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


def choose_coding(accepted: str) -> str:
    """Return the first coding of an Accept-Encoding header that is written here, or ""."""
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        refused = weight.replace(" ", "").rstrip("0.") == "q="
        if name.strip() in _WINDOW_BITS and not refused:
            return name.strip()
    return ""


def compress(body: bytes, coding: str) -> bytes | None:
    """Return a body in a coding, or None if it stays as it is."""
    if not coding or len(body) < _WORTH_BYTES:
        return None
    compressing = zlib.compressobj(1, wbits=_WINDOW_BITS[coding])
    return compressing.compress(body) + compressing.flush()
