from __future__ import annotations

import gzip
import zlib

import pytest

from gatehub.server.inference_protocol.compression import choose_coding, compress


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", ""),
        ("br, zstd, *", ""),
        ("gzip", "gzip"),
        ("br, Deflate;q=0.5, gzip", "deflate"),
        ("gzip; q=0.0, deflate", "deflate"),
    ],
)
def test_the_first_coding_that_is_accepted_is_taken(accepted: str, coding: str) -> None:
    assert choose_coding(accepted) == coding


def test_what_is_long_enough_is_compressed() -> None:
    body = b"scores" * 1000
    for coding, read in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        compressed = compress(body, coding)
        assert compressed is not None
        assert len(compressed) < 100
        assert read(compressed) == body
    assert compress(body, "") is None
    assert compress(b"scores", "gzip") is None
