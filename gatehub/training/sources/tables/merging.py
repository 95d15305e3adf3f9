"""Several tables of one task: what each of them says of an image, put together.

    animals.csv     colours.csv     both
    path,label      path,label
    a.png,cat       a.png,red       a.png: cat, red
    b.png,dog                       b.png: dog

An image has the labels of all tables that it stands in. Where it has one class, they must agree.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from gatehub._text import quote
from gatehub.errors import DataError
from gatehub.training.sources.class_order import CLASS_ORDER_FILE, order_classes
from gatehub.training.sources.given import name_given
from gatehub.training.sources.pictures import Picture, Source, collect_labels
from gatehub.training.sources.tables.label_sets import say_way
from gatehub.training.sources.tables.table import read_table

_Stands = tuple[Path, Picture]  # in which table, and as what


def read_tables(
    tables: Sequence[Path],
    *,
    columns: Mapping[str, str] | None = None,
    to_train: bool = True,
    multi_label: bool = False,
) -> Source:
    """List the labelled images of one table, or of several, each image once.

    Args:
        tables: files; paths in each are relative to its folder.
        columns: of every one of them; see `read_source`.
        to_train: see `read_source`.
        multi_label: see `read_source`.

    Raises:
        DataError: a table is not sound, is named twice, or says something else of an image than
            another one.
    """
    where = name_given(tables)
    _refuse_twice(tables)
    read = [
        read_table(table, columns=columns, to_train=to_train, multi_label=multi_label)
        for table in tables
    ]
    found = read[0] if len(read) == 1 else _merge(tables, read, to_train=to_train)
    orders = dict.fromkeys(table.with_name(CLASS_ORDER_FILE) for table in tables)
    files = [order for order in orders if to_train and order.is_file()]
    return order_classes(found, files, where)


def _merge(tables: Sequence[Path], sources: Sequence[Source], *, to_train: bool) -> Source:
    stands: dict[str, list[_Stands]] = {}
    for table, source in zip(tables, sources, strict=True):
        for picture in source.pictures:
            file = os.path.realpath(str(picture.image))
            stands.setdefault(file, []).append((table, picture))
    folders = {os.path.realpath(table.parent) for table in tables}
    common = None if len(folders) == 1 else os.path.commonpath(folders)
    pictures = [_join(each, common, to_train=to_train) for each in stands.values()]
    _check_sides(pictures, stands.values())
    ordered = any(source.labels is not None for source in sources)
    labels = [source.labels or sorted(collect_labels(source.pictures)) for source in sources]
    notes = [*_list_notes(tables, sources), *_describe_lacks(stands.values(), sources)]
    return Source(
        # In one order, whatever that of the tables.
        pictures=tuple(sorted(pictures, key=lambda picture: picture.name)),
        notes=tuple(notes),
        labels=tuple(dict.fromkeys(chain.from_iterable(labels))) if ordered else None,
        multi_label=sources[0].multi_label,
    )


def _join(stands: Sequence[_Stands], common: str | None, *, to_train: bool) -> Picture:
    """Make one picture of an image: its labels are those of all tables, its class their only one.

    Args:
        stands: at least one.
        common: the folder that paths are to be relative to; None for the one folder of all tables.
        to_train: see `read_source`.
    """
    table, first = stands[0]
    for other, picture in stands[1:]:
        if isinstance(first.label, str) and picture.label != first.label:
            raise DataError(
                f"{quote(first.name)} is {quote(first.label, 60)} in {table}, and "
                f"{quote(str(picture.label), 60)} in {other}; expected one label an image.",
                hint=f"Where an image has several labels, or none, {say_way(to_train=to_train)}.",
            )
    sided = [(path, picture.side) for path, picture in stands if picture.side is not None]
    for other, side in sided:
        if side != sided[0][1]:
            raise DataError(
                f"{quote(first.name)} is in {sided[0][1]} in {sided[0][0]}, and in {side} in "
                f"{other}.",
                hint="An image can be on one side only.",
            )
    label = first.label
    if not isinstance(label, str):
        label = tuple(sorted({own for _, picture in stands for own in picture.labels}))
    name = first.name if common is None else _spell_name(table, first, common)
    return replace(first, name=name, label=label, side=sided[0][1] if sided else None)


def _spell_name(table: Path, picture: Picture, common: str) -> str:
    """Spell a path from a common folder on: in two tables the same words may be two files."""
    file = os.path.join(os.path.realpath(table.parent), picture.name)
    return Path(os.path.relpath(file, common)).as_posix()


def _check_sides(pictures: Sequence[Picture], stands: Collection[Sequence[_Stands]]) -> None:
    """Refuse images without a side where others have one."""
    lacking = [i for i, picture in enumerate(pictures) if picture.side is None]
    if lacking and len(lacking) < len(pictures):
        table, picture = list(stands)[lacking[0]][0]
        raise DataError(
            f"{len(lacking):,} images have no side of the split, such as {quote(picture.name)} of "
            f"{table}, and others have one in another table.",
            hint="Write a column called split into every table; or leave it aside: --columns "
            "split=",
        )


def _list_notes(tables: Sequence[Path], sources: Sequence[Source]) -> Iterator[str]:
    """Say once what was noted of every table, and whose it is what was noted of some."""
    counts = Counter(chain.from_iterable(source.notes for source in sources))
    yield from (note for note, count in counts.items() if count == len(sources))
    for table, source in zip(tables, sources, strict=True):
        yield from (f"{table.name}: {note}" for note in source.notes if counts[note] < len(sources))


def _describe_lacks(
    stands: Collection[Sequence[_Stands]], sources: Sequence[Source]
) -> Iterator[str]:
    """Say that an image which a table does not list has none of its labels."""
    own = [source.labels or tuple(collect_labels(source.pictures)) for source in sources]
    if not sources[0].multi_label or all(set(labels) == set(own[0]) for labels in own):
        return
    partly = sum(len({table for table, _ in each}) < len(sources) for each in stands)
    if partly:
        yield (
            f"{partly:,} of {len(stands):,} images do not stand in every table; they count as "
            "having none of the labels of the others."
        )


def _refuse_twice(tables: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for table in tables:
        file = os.path.realpath(table)
        if file in first:
            raise DataError(
                f"The table {first[file]} is named twice, also as {table}; expected each table "
                "once."
            )
        first[file] = table
