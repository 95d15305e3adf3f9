"""The output sink: on a terminal or in a pipe that does not have every character."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from gatehub.cli._output import Format, Output, make_table, write_anywhere

# A letter of another script, a bird, and half a character as it stands in a broken file name.
HARD = "caf\u00e9 \u68a8 \U0001f426 \udcff"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "shift-jis", "utf-8", "utf-16"])
@pytest.mark.parametrize("format", list(Format))
def test_every_character_is_printed_in_some_way(
    encoding: str, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    write_anywhere()
    output = Output(format)
    output.note(HARD)
    output.result({"label": HARD}, human=HARD, quiet=HARD)
    output.result({"label": HARD}, human=make_table(("a", "b"), [(HARD, "1")]), quiet=HARD)
    out.flush()
    printed = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "caf" in printed
    if format is Format.json:
        assert [json.loads(line) for line in printed.splitlines()] == [{"label": HARD}] * 2


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_bytes_of_a_path_that_are_no_text_are_escaped(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    write_anywhere()
    output, name = Output(Format.human), os.fsdecode(b"caf\xff\x1b.png")
    for part in (name, make_table(("image", "label"), [(name, "1")])):
        output.note(part)
        output.result({}, human=part, quiet="")
    output.paragraph(name)
    for stream in (out, err):
        stream.flush()
        printed = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
        shown = [line.split()[0] for line in printed.splitlines() if "caf" in line]
        assert set(shown) == {"caf\\xff\\x1b.png"}


def test_a_program_may_take_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    write_anywhere()
    Output(Format.json).result({"label": HARD}, human="", quiet="")
    assert json.loads(stream.getvalue()) == {"label": HARD}
