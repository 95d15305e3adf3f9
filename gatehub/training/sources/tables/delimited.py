"""Delimited text as rows of cells, whichever of the usual delimiters it was written with.

What a cell holds that is more than text: 0 and 1, lists.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import tokenize
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from gatehub.errors import DataError
from gatehub.training.sources.text import read_text

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_ITEM = re.compile(r"""'([^']*)'|"([^"]*)"|([^,\s'"][^,]*)""")
_LITERALS = ("[", "(", "{", "set(")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


class Row(NamedTuple):
    """A row that is not blank.

    Attributes:
        line: the number of its last line, from 1.
        cells: without the blanks around them.
    """

    line: int
    cells: list[str]


def read_rows(table: Path, is_header: Callable[[Sequence[str]], bool]) -> list[Row]:
    """Read the rows of a table; cells may be quoted, and hold delimiters and line breaks then.

    The delimiter is the one by which the first row is a header, whatever the file's ending: a
    spreadsheet writes semicolons into .csv where the comma is the decimal point.

    Args:
        table: delimited by commas, semicolons or tabs.
        is_header: whether cells can be a header.

    Returns:
        The rows, the header first; by no delimiter a header, if none is.

    Raises:
        DataError: the table cannot be read, or its first row is a header by two delimiters.
    """
    text = read_text(table, "table")
    headers = {delimiter: _read_first(table, text, delimiter) for delimiter in DELIMITERS}
    fitting = [delimiter for delimiter, cells in headers.items() if is_header(cells)]
    if len(fitting) > 1:
        raise DataError(
            f"The first row of {table} is a header by "
            f"{' and by '.join(DELIMITERS[delimiter] for delimiter in fitting)}.",
            hint='Keep to one delimiter, and put names that hold another one in quotes (").',
        )
    delimiter = (fitting or [max(DELIMITERS, key=lambda each: len(headers[each]))])[0]
    return list(_split(table, text, delimiter))


def read_flag(cell: str) -> bool | None:
    """Return what a cell of 0 and 1, or of false and true, says; None if it has something else."""
    return _FLAGS.get(cell.casefold())


def find_stranger(rows: Sequence[Row], place: int) -> Row | None:
    """Return the first row that is neither 0 nor 1 in a column."""
    return next((row for row in rows if read_flag(row.cells[place]) is None), None)


def begins_as_list(cell: str) -> bool:
    """Whether a cell may be a list, see `read_list`."""
    return cell.startswith(_LITERALS)


def read_list(cell: str) -> list[str] | None:
    """Return the texts of a list, as JSON or Python writes it or in plain brackets: [cat, dog].

    None if it is none.
    """
    if not begins_as_list(cell):
        return None
    for read in (json.loads, _read_literal):
        try:
            found = read(cell)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, list | tuple | set) and all(isinstance(text, str) for text in found):
            return list(found)
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    return [next(filter(None, found), "").strip() for found in _ITEM.findall(cell[1:-1])]


def _read_literal(cell: str) -> object:
    """Return what a literal of Python's is, but for ['cat' 'dog'], NumPy's two and Python's one.

    Raises:
        SyntaxError: it is no literal.
        ValueError: the same.
        TypeError: the same.
        MemoryError: it is nested too deep.
        RecursionError: the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # backslashes that escape nothing
        found: object = ast.literal_eval(cell)
    tokens = tokenize.generate_tokens(io.StringIO(cell).readline)
    kinds = [token.type for token in tokens if token.type != tokenize.NL]
    if (tokenize.STRING, tokenize.STRING) in pairwise(kinds):
        raise ValueError("two texts without a comma between them")
    return found


def _read_first(table: Path, text: str, delimiter: str) -> list[str]:
    try:
        return next((row.cells for row in _split(table, text, delimiter)), [])
    except DataError:  # quotes that are in their place by another delimiter
        return []


def _split(table: Path, text: str, delimiter: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                yield Row(reader.line_num, cells)
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}.") from error
