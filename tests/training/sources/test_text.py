from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from gatehub.errors import DataError
from gatehub.training.sources.text import read_text

TEXT = "Zoé\r\nŁódź\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_are_certain(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "t", "table") == TEXT


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_8_bit_text_is_refused_with_a_command_that_converts_it(
    tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "my t.csv").write_bytes("path\ncafé\n".encode(encoding))
    with pytest.raises(DataError, match=r"is not UTF-8 text: line 2 has the byte 0xe9.*Latin-1"):
        read_text(tmp_path / "my t.csv", "table")
    with pytest.raises(DataError) as caught:
        read_text(tmp_path / "my t.csv", "table")
    assert caught.value.hint is not None
    command = caught.value.hint[caught.value.hint.index("iconv") :]
    if shutil.which("iconv") is not None:
        subprocess.run(command, shell=True, check=True)
        assert read_text(tmp_path / "my t-utf8.csv", "table") == "path\ncafé\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("path".encode("utf-16-le"), "holds NUL bytes, so it is no text, or UTF-16 without"),
        ("pathé".encode("utf-16-le"), "holds NUL bytes"),
        ("path".encode("utf-32"), "holds NUL bytes"),
        (b"PK\3\4\0\0\xff", "holds NUL bytes"),
        ("path".encode("utf-16") + b"x", "begins as UTF-16 text, but is none: truncated data"),
    ],
)
def test_what_is_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "t", "table")
