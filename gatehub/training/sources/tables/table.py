"""Tables of labelled images: columns for path, label and optionally split, in delimited text.

Where an image may have any number of labels, see `label_sets` for how they are written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.pictures import Picture, Side, Source, spell_label
from gatehub.training.sources.side_names import find_side
from gatehub.training.sources.tables.columns import (
    NEEDED,
    check_columns,
    choose_columns,
    describe_columns,
    has_columns,
)
from gatehub.training.sources.tables.delimited import Row, find_stranger, read_flag, read_rows
from gatehub.training.sources.tables.flags import find_flags, read_flags, refuse_flags
from gatehub.training.sources.tables.label_sets import refuse_sets, say_way, split_cells
from gatehub.training.sources.tables.marks import check_marks, find_marked_side


def read_table(
    table: Path,
    *,
    columns: Mapping[str, str] | None = None,
    to_train: bool = True,
    multi_label: bool = False,
) -> Source:
    """List the labelled images of a table, row by row; see `merging` for their order of classes.

    Args:
        table: a file; paths in it are relative to its folder.
        columns: see `read_source`.
        to_train: see `read_source`.
        multi_label: see `read_source`.

    Raises:
        DataError: it cannot be read, its columns can be read in two ways, or a row is not sound.
    """
    columns = columns or {}
    check_columns(columns)
    needed = ("path",) if multi_label else NEEDED
    rows = read_rows(table, lambda header: has_columns(header, columns, needed))
    if not rows:
        raise DataError(f"{table} is empty; expected a header with the columns path and label.")
    (line, header), *below = rows
    if not multi_label and not has_columns(header, columns, ("label",)):
        refuse_flags(header, below, where=str(table), to_train=to_train)
    places = choose_columns(header, columns, where=f"{table}, line {line}", needed=needed)
    entries = list(_read_entries(table, header, below, places))
    if multi_label and "label" in places and _is_flag(header, below, places["label"]):
        del places["label"]
    free = multi_label and "label" not in places
    check_marks(table, header, below, places=places, columns=columns, may_be_labels=free)
    notes = tuple(describe_columns(table, header, places))
    labels = None
    if not multi_label:
        cells = [entry.row.cells[places["label"]] for entry in entries]
        pictures = tuple(_read_pictures(table, entries, cells, to_train=to_train))
        notes += tuple(refuse_sets(cells, where=str(table), to_train=to_train))
    elif "label" in places:
        pictures, found = _read_cells(table, entries, places["label"])
        notes += found
    else:
        flags = find_flags(
            str(table),
            header,
            below,
            taken=places.values(),
            named=columns.get("label", ""),
            sides=[entry.side for entry in entries],
        )
        sets = [read_flags(header, entry.row, flags.places) for entry in entries]
        pictures = tuple(_read_pictures(table, entries, sets, to_train=to_train))
        notes += flags.notes
        labels = tuple(spell_label(header[place]) for place in flags.places)
    return Source(pictures=pictures, notes=notes, labels=labels, multi_label=multi_label)


def _is_flag(header: Sequence[str], rows: Sequence[Row], place: int) -> bool:
    """Whether a column is one label, 0 or 1, and not a column of labels that may be numbers."""
    usual = has_columns([header[place]], {}, ("label",))
    return bool(rows) and not usual and find_stranger(rows, place) is None


def has_named_columns(
    table: Path, columns: Mapping[str, str], *, multi_label: bool = False
) -> bool:
    """Whether a table has all columns of these names.

    Args:
        table: a file.
        columns: see `read_source`.
        multi_label: see `read_source`; then | may stand between several columns of labels.

    Raises:
        DataError: it cannot be read.
    """
    needed = ("path",) if multi_label else NEEDED
    rows = read_rows(table, lambda header: has_columns(header, columns, needed))
    header = set(rows[0].cells) if rows else set()
    names = {role: name.strip() for role, name in columns.items() if name.strip()}
    labels = names.get("label", "")
    if multi_label and labels not in header:
        wanted = {name.strip() for name in labels.split("|") if labels}
        names.pop("label", None)
    else:
        wanted = set()
    return bool(rows) and wanted | set(names.values()) <= header


class _Entry(NamedTuple):
    """A row whose path and side are sound.

    Attributes:
        row: all of it.
        name: the path, as `Picture.name`.
        file: which it leads to.
        side: of the split.
    """

    row: Row
    name: str
    file: Path
    side: Side | None


def _read_entries(
    table: Path, header: Sequence[str], rows: Sequence[Row], places: Mapping[str, int]
) -> Iterator[_Entry]:
    for row in rows:
        where = f"{table}, line {row.line}"
        if len(row.cells) != len(header):
            raise DataError(
                f"{where}: {len(row.cells)} cells; expected {len(header)}, as in the header.",
                hint='Put a cell that holds a delimiter in quotes (").',
            )
        written = row.cells[places["path"]]
        side = None
        if "split" in places:
            side = _read_side(row.cells[places["split"]], header[places["split"]], where)
        name = _spell_path(table.parent, written)
        file = table.parent / name
        if not os.path.isfile(file):
            raise _refuse_path(table.parent, written, where)
        yield _Entry(row, name, file, side)


def _read_pictures(
    table: Path,
    entries: Sequence[_Entry],
    labels: Sequence[str | frozenset[str]],
    *,
    to_train: bool,
) -> Iterator[Picture]:
    """Make a picture of each row; with a text for each, that is its class."""
    first: dict[str, tuple[int, str | frozenset[str]]] = {}
    several = f"Where an image has several labels, or none, {say_way(to_train=to_train)}."
    for entry, label in zip(entries, labels, strict=True):
        where = f"{table}, line {entry.row.line}"
        if label == "":
            raise DataError(f"{where}: the label is empty.", hint=several)
        path = os.path.normpath(entry.file)
        if path in first:
            line, before = first[path]
            raise DataError(
                f"{where}: {entry.name!r} stands on line {line} already.",
                hint=several if isinstance(label, str) and label != before else None,
            )
        first[path] = entry.row.line, label
        spelt = spell_label(label) if isinstance(label, str) else tuple(sorted(label))
        yield Picture(name=entry.name, label=spelt, image=entry.file, side=entry.side)


def _read_cells(
    table: Path, entries: Sequence[_Entry], place: int
) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """Make a picture of each image, with the labels of all its rows."""
    paths = [os.path.normpath(entry.file) for entry in entries]
    first = dict(zip(reversed(paths), reversed(entries), strict=True))
    repeated = len(first) < len(paths)
    cells = [entry.row.cells[place] for entry in entries]
    labels, notes = split_cells(cells, repeated=repeated, where=str(table))
    sets: dict[str, set[str]] = {path: set() for path in paths}
    for path, entry, own in zip(paths, entries, labels, strict=True):
        sets[path] |= own
        if entry.side != first[path].side:
            raise DataError(
                f"{table}, line {entry.row.line}: {entry.name!r} is in {entry.side}, and on line "
                f"{first[path].row.line} in {first[path].side}.",
                hint="An image can be on one side only.",
            )
    if repeated:
        notes += (f"{len(first):,} images stand on {len(paths):,} lines; each has all its labels.",)
    pictures = tuple(
        Picture(
            name=first[path].name,
            label=tuple(sorted(own)),
            image=first[path].file,
            side=first[path].side,
        )
        for path, own in sets.items()
    )
    return pictures, notes


def _read_side(text: str, column: str, where: str) -> Side:
    flag, marked = read_flag(text), find_marked_side(column)
    if flag is not None and marked in ("val", "test"):
        return marked if flag else "train"
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
