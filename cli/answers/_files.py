"""Files that answers are written to."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import typer

# What no encoding has, such as half a character in a broken file name, is written as \udc80.
ESCAPED = "backslashreplace"


def check_file(file: Path, *suffixes: str) -> None:
    """Refuse a file that cannot be made, or whose name has another end, before the work begins."""
    if file.suffix.lower() not in suffixes:
        raise typer.BadParameter(f"'{file}' does not end in {' or '.join(suffixes)}.")
    if file.is_dir():
        raise typer.BadParameter(f"'{file}' is a folder.")
    if not file.parent.is_dir():
        raise typer.BadParameter(f"'{file}' would lie in '{file.parent}', which is no folder.")
    if not os.access(file.parent, os.W_OK):
        raise typer.BadParameter(f"'{file}' cannot be written: nothing can in '{file.parent}'.")


def open_csv(file: BinaryIO, header: Sequence[str]) -> Callable[[Sequence[object]], None]:
    """Write a header to a file and return what writes a row; UTF-8, commas, lines end in \\n."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")

    def write(row: Sequence[object]) -> None:
        text.seek(0)
        text.truncate()
        rows.writerow(row)
        file.write(text.getvalue().encode(errors=ESCAPED))

    write(header)
    return write
