"""Tables of labelled images: columns path, label and optionally split, in CSV or TSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer
from gatehub.errors import DataError
from gatehub.training.sources.pictures import Picture, Side, name_some, spell_label
from gatehub.training.sources.side_names import find_side


def read_table(table: Path) -> Iterator[Picture]:
    """List the labelled images of a table, row by row.

    Raises:
        DataError: it cannot be read, or a row is not sound.
    """
    rows = _rows(table)
    if not rows:
        raise DataError(f"{table} is empty; expected a header with the columns path and label.")
    header_line, header = rows[0]
    for column in ("path", "label", "split"):
        count = header.count(column)
        if count > 1 or (count == 0 and column != "split"):
            raise DataError(
                f"{table}, line {header_line}: the columns are {name_some(header)}; "
                "expected path and label, and optionally split, once each."
            )
    first_line: dict[str, int] = {}
    for line, cells in rows[1:]:
        row = dict(zip(header, cells, strict=False))
        file = table.parent / row.get("path", "")
        path = os.path.normpath(file)
        side = _read_side(row.get("split", ""))
        problem = None
        if len(cells) != len(header):
            problem = f"{len(cells)} cells; expected {len(header)}, as in the header"
        elif not row["label"]:
            problem = "the label is empty"
        elif "split" in row and side is None:
            problem = f"the split is {row['split']!r}; expected train, val or test"
        elif not os.path.isfile(file):
            problem = f"there is no file {row['path']!r} in {table.parent}"
        elif path in first_line:
            problem = f"{row['path']!r} stands on line {first_line[path]} already"
        if problem is not None:
            raise DataError(f"{table}, line {line}: {problem}.")
        first_line[path] = line
        yield Picture(name=row["path"], label=spell_label(row["label"]), image=file, side=side)


def _read_side(text: str) -> Side | None:
    found = find_side(text)
    return None if found is None or found[1] else found[0]


def _rows(table: Path) -> list[tuple[int, list[str]]]:
    """Return the table's rows that are not blank, each with its last line's number."""
    delimiter = "\t" if table.suffix.lower() == ".tsv" else ","
    try:
        if is_pointer(table):
            raise DataError(describe_pointer(f"'{table}'"), hint=advise_pull(table.parent))
        with table.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            stripped = ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
            return [(line, row) for line, row in stripped if any(row)]
    except OSError as error:
        raise DataError(f"The table {table} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The table {table} is not UTF-8 text: {error.reason}.") from error
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: {error}.") from error
