"""Tables of labelled images: columns for path, label and optionally split, in delimited text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.class_order import CLASS_ORDER_FILE, order_classes
from gatehub.training.sources.columns import (
    check_columns,
    choose_columns,
    describe_columns,
    has_columns,
)
from gatehub.training.sources.delimited import Row, read_rows
from gatehub.training.sources.pictures import Picture, Side, Source, spell_label
from gatehub.training.sources.side_names import find_side


def read_table(
    table: Path, *, columns: Mapping[str, str] | None = None, to_train: bool = True
) -> Source:
    """List the labelled images of a table, row by row.

    Args:
        table: a file; paths in it are relative to its folder.
        columns: see `read_source`.
        to_train: see `read_source`.

    Raises:
        DataError: it cannot be read, its columns can be read in two ways, or a row is not sound.
    """
    columns = columns or {}
    check_columns(columns)
    rows = read_rows(table, lambda header: has_columns(header, columns))
    if not rows:
        raise DataError(f"{table} is empty; expected a header with the columns path and label.")
    line, header = rows[0]
    places = choose_columns(header, columns, where=f"{table}, line {line}")
    source = Source(
        pictures=tuple(_read_pictures(table, rows[1:], places, width=len(header))),
        notes=tuple(describe_columns(table, header, places)),
    )
    order = table.with_name(CLASS_ORDER_FILE)
    return order_classes(source, [order] if to_train and order.is_file() else [], table)


def has_named_columns(table: Path, columns: Mapping[str, str]) -> bool:
    """Whether a table has all columns of these names.

    Args:
        table: a file.
        columns: see `read_source`.

    Raises:
        DataError: it cannot be read.
    """
    rows = read_rows(table, lambda header: has_columns(header, columns))
    names = {name.strip() for name in columns.values() if name.strip()}
    return bool(rows) and names <= set(rows[0].cells)


def _read_pictures(
    table: Path, rows: Sequence[Row], places: Mapping[str, int], *, width: int
) -> Iterator[Picture]:
    first_line: dict[str, int] = {}
    for line, cells in rows:
        where = f"{table}, line {line}"
        if len(cells) != width:
            raise DataError(f"{where}: {len(cells)} cells; expected {width}, as in the header.")
        written, label = cells[places["path"]], cells[places["label"]]
        if not label:
            raise DataError(f"{where}: the label is empty.")
        side = _read_side(cells[places["split"]], where) if "split" in places else None
        name = _spell_path(table.parent, written)
        file = table.parent / name
        if not os.path.isfile(file):
            raise _refuse_path(table.parent, written, where)
        path = os.path.normpath(file)
        if path in first_line:
            raise DataError(f"{where}: {written!r} stands on line {first_line[path]} already.")
        first_line[path] = line
        yield Picture(name=name, label=spell_label(label), image=file, side=side)


def _read_side(text: str, where: str) -> Side:
    found = find_side(text)
    if found is None or found[1]:
        raise DataError(
            f"{where}: the split is {text!r}; expected train, val or test.",
            hint="If that column is not the split, say so: --columns split=",
        )
    return found[0]


def _spell_path(folder: Path, written: str) -> str:
    """Return a path with forward slashes, if it was written on Windows.

    Elsewhere a backslash may be part of a name, so a file that has it keeps it.
    """
    if os.sep == "/" and ("\\" not in written or os.path.isfile(folder / written)):
        return written
    return written.replace("\\", "/")


def _refuse_path(folder: Path, written: str, where: str) -> DataError:
    if not _is_absolute(written):
        return DataError(f"{where}: there is no file {written!r} in {folder}.")
    parts = PurePosixPath(written.replace("\\", "/")).parts
    tails = ("/".join(parts[begin:]) for begin in range(1, len(parts)))
    tail = next((tail for tail in tails if os.path.isfile(folder / tail)), None)
    hint = "Write paths relative to the table's folder."
    if tail is not None:
        start = written[: len(written) - len(tail)]
        hint = (
            f"Remove {quote(start)} from the beginning of the paths: they are relative to the "
            f"table's folder, and {quote(tail)} is there."
        )
    return DataError(
        f"{where}: there is no file {written!r}, an absolute path; it may be of another machine.",
        hint=hint,
    )


def _is_absolute(path: str) -> bool:
    windows = PureWindowsPath(path)
    return bool(windows.drive or windows.root)
