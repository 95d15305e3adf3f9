"""The forms in which labelled images are given, each read into one list of pictures.

    DIR/train/CLASS/*, DIR/val/CLASS/*       a folder that is already split; see `folder`
    DIR/CLASS/*                              a folder to be split
    TABLE.csv, TABLE.tsv, TABLE.txt          columns path, label and optionally split; see `tables`.
                                             Several tables of one task may be given together
    sklearn:digits                           1,797 handwritten digits of 8x8 pixels
    glyphs:SCRIPT                            letters of a script, rendered from fonts
    hf:NAME, hf:NAME:SPLIT                   a data set of Hugging Face's; see `huggingface`

A classes.txt beside a table, or in a folder, gives the order of the classes; see `class_order`.
Reading a source lists files and decodes none, so what is wrong with the layout is said first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from gatehub.errors import DataError
from gatehub.training.sources.folder import read_folder
from gatehub.training.sources.generated import rendered_glyphs, scanned_digits
from gatehub.training.sources.given import Given, list_given, refuse_several
from gatehub.training.sources.huggingface import PREFIX, has_features, read_dataset
from gatehub.training.sources.pictures import Source
from gatehub.training.sources.tables import has_named_columns, read_tables

FORMS = (
    "a folder with train/CLASS/* and val/CLASS/*, a folder with CLASS/*, "
    "a .csv, .tsv or .txt table with the columns path and label, sklearn:digits, "
    "glyphs:SCRIPT, or hf:NAME for a data set of Hugging Face's"
)
_DIGITS, _GLYPHS = "sklearn:digits", "glyphs:"
_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")  # .txt is what Excel calls Unicode text
_SHEET_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")


def read_source(
    source: Given,
    *,
    seed: int = 0,
    train_images: int | None = None,
    to_train: bool = True,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
) -> Source:
    """List the labelled images of a source.

    Args:
        source: one of the forms in this module's docstring; a `Path` is a file or a folder. Or
            several tables.
        seed: decides what `glyphs:SCRIPT` renders; no other form depends on it.
        train_images: how many pictures `glyphs:SCRIPT` renders to train on, 400 by default.
        to_train: refuse folders in which a class has no images on a side, and a classes.txt that
            does not list every class; what is only measured need not have them all.
        columns: names of a table's columns by what is in them: "path", "label" or "split", an
            empty one for a table that has no split. What is not named is found by usual names.
        multi_label: whether an image may have any number of labels, or none; a table or a data set
            says which, see `tables.label_sets` and `huggingface.features`.

    Raises:
        DataError: the source is of no known form, or its layout is not sound.
    """
    sources = list_given(source)
    source, forms = sources[0], [_find_form(each) for each in sources]
    if len(sources) > 1:
        for other, form in zip(sources, forms, strict=True):
            if form != "table":
                raise refuse_several(str(other))
    form = forms[0]
    if columns and form not in ("table", "dataset"):
        raise DataError(
            f"The columns of {str(source)!r} are named, which is no table; expected a table "
            f"({', '.join(_TABLE_SUFFIXES)}), or a data set (hf:NAME).",
            hint="Leave --columns out.",
        )
    if multi_label and form not in ("table", "dataset"):
        each = "a folder puts each image into one class" if form == "folder" else "it has one label"
        raise DataError(
            f"{str(source)!r} cannot have several labels for an image: {each}; expected a table "
            f"({', '.join(_TABLE_SUFFIXES)}), or a data set (hf:NAME).",
            hint="Write a table with the columns path and labels, or leave --multi-label out."
            if to_train
            else "The adapter gives an image any number of labels; measure it on a table with the "
            "columns path and labels.",
        )
    if form == "digits":
        return Source(pictures=tuple(scanned_digits()), default_train_images=300)
    if form == "glyphs":
        script = str(source).removeprefix(_GLYPHS)
        return Source(pictures=tuple(rendered_glyphs(script, seed, train_images)))
    if form == "dataset":
        return read_dataset(
            str(source), columns=columns, to_train=to_train, multi_label=multi_label
        )
    if form == "folder":
        return read_folder(Path(source), to_train=to_train)
    return read_tables(
        list(map(Path, sources)), columns=columns, to_train=to_train, multi_label=multi_label
    )


def takes_columns(source: Given, columns: Mapping[str, str], *, multi_label: bool = False) -> bool:
    """Whether tables, or a data set, have columns of these names; see `read_source`.

    Raises:
        DataError: the source is of no known form, or cannot be read.
    """
    return all(_takes_columns(each, columns, multi_label) for each in list_given(source))


def _takes_columns(source: str | Path, columns: Mapping[str, str], multi_label: bool) -> bool:
    form = _find_form(source)
    if form == "dataset":
        return has_features(str(source), columns, multi_label=multi_label)
    return form == "table" and has_named_columns(Path(source), columns, multi_label=multi_label)


def _find_form(source: str | Path) -> Literal["digits", "glyphs", "dataset", "folder", "table"]:
    if source == _DIGITS:
        return "digits"
    if isinstance(source, str) and source.startswith(_GLYPHS):
        return "glyphs"
    if isinstance(source, str) and source.startswith(PREFIX):
        return "dataset"
    if os.path.isdir(source):
        return "folder"
    if Path(source).suffix.lower() in _TABLE_SUFFIXES:
        return "table"
    what = "is neither a folder nor a table" if os.path.exists(source) else "does not exist"
    sheet = Path(source).suffix.lower() in _SHEET_SUFFIXES
    raise DataError(
        f"The data source {str(source)!r} {what}; expected {FORMS}.",
        hint='Save the sheet as "CSV UTF-8", and name that file.' if sheet else None,
    )
