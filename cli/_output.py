"""The one place where commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gatehub._text import printable

Advance = Callable[[int, int | None], None]  # done, and of how many where that is known

_UNBOUNDED = 10_000
_NARROW = 80
_PARAGRAPH = 100
_SHORT_CHARACTERS = 12


class Format(str, Enum):
    """How results are printed."""

    human = "human"
    json = "json"
    quiet = "quiet"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format", help="human; json: one object on stdout; quiet: the bare result, no notes."
    ),
]


def write_anywhere() -> None:
    """Let the process print every character, as an escape where the terminal does not have it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Output:
    """Where a command's results and notes go.

    Args:
        format: how results are printed.
    """

    def __init__(self, format: Format) -> None:
        self.format = format
        self._results = Console(highlight=False)
        if not self._results.is_terminal and not os.environ.get("COLUMNS"):
            self._results.width = _UNBOUNDED  # what is read by programs keeps its lines
        self._notes = Console(stderr=True, highlight=False, quiet=format is Format.quiet)

    def result(
        self, value: dict[str, Any], *, human: str | Table | Sequence[str | Table], quiet: str
    ) -> None:
        """Print a command's result, in the one form that was asked for.

        Args:
            value: for json: one object.
            human: for a person: a sentence or a table, or several.
            quiet: for a shell: the bare value.
        """
        if self.format is Format.json:
            self.write(format_json(value) + "\n")
        elif self.format is Format.quiet:
            self.write(quiet + "\n" if quiet else "")
        else:
            for part in [human] if isinstance(human, str | Table) else human:
                self._show(part)
            sys.stdout.flush()

    def write(self, text: str) -> None:
        """Write part of a result that comes bit by bit, as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    @property
    def width(self) -> int:
        """How many characters a line of a result may have."""
        return self._results.width

    @property
    def is_watched(self) -> bool:
        """Whether somebody sees bars."""
        return self.format is not Format.quiet and self._notes.is_terminal

    def _show(self, part: str | Table) -> None:
        if isinstance(part, str):
            self._results.print(escape(_printable(part)), soft_wrap=True)
            return
        for column in part.columns if self.width < _NARROW else ():
            column.no_wrap = False
        self._results.print(part)

    def note(self, what: str | Table) -> None:
        """Say or show something on the way, on stderr."""
        if isinstance(what, str):
            self._notes.print(escape(_printable(what)), soft_wrap=True)
        else:
            self._notes.print(what)

    def paragraph(self, text: str) -> None:
        """Say something of several lines on stderr, at most 100 columns wide."""
        self._notes.print(escape(_printable(text)), width=_PARAGRAPH)

    def govern_client_bars(self) -> None:
        """Turn the Hub client's own progress bars off where nobody looks."""
        from huggingface_hub.utils.tqdm import disable_progress_bars

        if not self.is_watched:
            disable_progress_bars()

    @contextmanager
    def warnings_as_notes(self, noted: type[Warning]) -> Iterator[None]:
        """Show warnings of a category as notes, without the line of code that gave them."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", noted)
            show = warnings.showwarning

            def note(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if issubclass(category, noted):
                    self.note(f"Note: {message}")
                else:
                    show(message, category, filename, lineno, file, line)

            warnings.showwarning = note
            yield

    @contextmanager
    def progress(self, what: str, *, beside_results: bool = False) -> Iterator[Advance]:
        """Show a bar on stderr while something takes its time; none where nobody looks.

        Args:
            what: what takes its time.
            beside_results: results are printed meanwhile; on a terminal these show how far it is.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self.is_watched or (beside_results and self._results.is_terminal)
        with Progress(
            *columns,
            console=self._notes,
            transient=True,
            disable=hidden,
            redirect_stdout=False,  # rich would print results on stderr
        ) as bars:
            bar = bars.add_task(escape(what), total=None)

            def advance(done: int, total: int | None) -> None:
                bars.update(bar, completed=done, total=total)

            yield advance


def format_json(value: object) -> str:
    """Return a value as JSON on one line, in characters that stdout has."""
    wide = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return json.dumps(value, ensure_ascii=not wide)


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table whose first `left` columns are flush left, the others flush right.

    Where it is too wide, long cells are folded; short ones stay whole from 80 columns on.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        longest = max(map(len, (column, *(row[index] for row in rows))))
        table.add_column(
            escape(_printable(column)),
            justify="left" if index < left else "right",
            overflow="fold",
            no_wrap=longest <= _SHORT_CHARACTERS,
        )
    for row in rows:
        table.add_row(*(escape(_printable(cell)) for cell in row))
    return table


def format_bytes(count: int) -> str:
    """Return a size as a person reads it, in powers of 1000."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"


def format_percent(share: float) -> str:
    """Return a fraction in percent, with one decimal."""
    return f"{100 * share:.1f} %"


def _printable(text: str) -> str:
    """Escape what a terminal would obey: strangers write messages, cards and file names."""
    return re.sub(r"[^\n\t]+", lambda found: printable(found[0]), text)
