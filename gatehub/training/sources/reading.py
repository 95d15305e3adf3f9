"""The forms in which labelled images are given, each read into one list of pictures.

    DIR/train/CLASS/*, DIR/val/CLASS/*       a folder that is already split; see `folder`
    DIR/CLASS/*                              a folder to be split
    TABLE.csv, TABLE.tsv                     columns path, label and optionally split
    sklearn:digits                           1,797 handwritten digits of 8x8 pixels
    glyphs:SCRIPT                            letters of a script, rendered from fonts

Reading a source lists files and decodes none, so what is wrong with the layout is said first.
"""

from __future__ import annotations

import os
from pathlib import Path

from gatehub.errors import DataError
from gatehub.training.sources.folder import read_folder
from gatehub.training.sources.generated import rendered_glyphs, scanned_digits
from gatehub.training.sources.pictures import Source
from gatehub.training.sources.table import read_table

FORMS = (
    "a folder with train/CLASS/* and val/CLASS/*, a folder with CLASS/*, "
    "a .csv or .tsv table with the columns path and label, sklearn:digits, or glyphs:SCRIPT"
)


def read_source(
    source: str | Path,
    *,
    seed: int = 0,
    train_images: int | None = None,
    to_train: bool = True,
) -> Source:
    """List the labelled images of a source.

    Args:
        source: one of the forms in this module's docstring; a `Path` is a file or a folder.
        seed: decides what `glyphs:SCRIPT` renders; no other form depends on it.
        train_images: how many pictures `glyphs:SCRIPT` renders to train on, 400 by default.
        to_train: refuse folders in which a class has no images on a side; what is only measured
            need not have them all.

    Raises:
        DataError: the source is of no known form, or its layout is not sound.
    """
    if source == "sklearn:digits":
        return Source(pictures=tuple(scanned_digits()), default_train_images=300)
    if isinstance(source, str) and source.startswith("glyphs:"):
        script = source.removeprefix("glyphs:")
        return Source(pictures=tuple(rendered_glyphs(script, seed, train_images)))
    if os.path.isdir(source):
        return read_folder(Path(source), to_train=to_train)
    if Path(source).suffix.lower() in (".csv", ".tsv"):
        return Source(pictures=tuple(read_table(Path(source))))
    what = "is neither a folder nor a table" if os.path.exists(source) else "does not exist"
    raise DataError(f"The data source {str(source)!r} {what}; expected {FORMS}.")
