"""The one place where commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import os
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

Advance = Callable[[int, int], None]

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

    def result(self, value: dict[str, Any], *, human: str | Table, quiet: str) -> None:
        """Print a command's result, in the one form that was asked for.

        Args:
            value: for json: one object.
            human: for a person: a sentence or a table.
            quiet: for a shell: the bare value.
        """
        if self.format is Format.json:
            wide = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
            sys.stdout.write(json.dumps(value, ensure_ascii=not wide) + "\n")
        elif self.format is Format.quiet:
            sys.stdout.write(quiet + "\n" if quiet else "")
        elif isinstance(human, str):
            self._results.print(escape(_printable(human)), soft_wrap=True)
        else:
            for column in human.columns if self._results.width < _NARROW else ():
                column.no_wrap = False
            self._results.print(human)
        sys.stdout.flush()

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

        if self.format is Format.quiet or not self._notes.is_terminal:
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
    def progress(self, what: str) -> Iterator[Advance]:
        """Show a bar on stderr while something takes its time; none where nobody looks."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        hidden = self.format is Format.quiet or not self._notes.is_terminal
        with Progress(*columns, console=self._notes, transient=True, disable=hidden) as bars:
            bar = bars.add_task(escape(what), total=None)

            def advance(done: int, total: int) -> None:
                bars.update(bar, completed=done, total=total)

            yield advance


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table whose first `left` columns are flush left, the others flush right.

    Where it is too wide, long cells are folded; short ones stay whole from 80 columns on.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        longest = max(map(len, (column, *(row[index] for row in rows))))
        table.add_column(
            column,
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
    """Take out what a terminal would obey: strangers write messages, cards and file names."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
