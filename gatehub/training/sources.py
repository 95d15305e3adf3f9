"""The forms in which labelled images are given, each read into one list of pictures.

    DIR/train/CLASS/* and DIR/val/CLASS/*    a folder that is already split
    DIR/CLASS/*                              a folder to be split
    TABLE.csv, TABLE.tsv                     columns path, label and optionally split
    sklearn:digits                           1,797 handwritten digits of 8x8 pixels
    glyphs:SCRIPT                            letters of a script, rendered from fonts

Reading a source lists files and opens none: what is wrong with the layout is said before
the first image is decoded.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer
from gatehub.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
FORMS = (
    "a folder with train/CLASS/* and val/CLASS/*, a folder with CLASS/*, "
    "a .csv or .tsv table with the columns path and label, sklearn:digits, or glyphs:SCRIPT"
)
GLYPH_TRAIN_IMAGES = 400
GLYPH_VAL_IMAGES = 600
GLYPH_SIZE_PX = 40

Side = Literal["train", "val"]
_SIDES: dict[str, Side] = {"train": "train", "val": "val"}
_SPLIT_NAMES = frozenset({"train", "val", "valid", "validation", "test"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """One labelled image that has not been decoded yet.

    Attributes:
        name: the path as the source spells it, with forward slashes, or `digits/123`; the
            same on every machine that holds the source.
        label: the class.
        image: the file, or (H, W, 3) uint8 pixels in 0..255.
        side: where the source puts the picture, None where the source has no split.
    """

    name: str
    label: str
    image: Path | NDArray[np.uint8]
    side: Side | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source holds.

    Attributes:
        pictures: in an order that does not depend on the file system; either all of them
            have a side or none has.
        default_train_images: how many pictures to train on unless the caller says, None
            where a fraction decides.
    """

    pictures: tuple[Picture, ...]
    default_train_images: int | None = None


def read_source(source: str | Path, *, seed: int = 0, train_images: int | None = None) -> Source:
    """List the labelled images of a source.

    Args:
        source: one of the forms in this module's docstring; a `Path` is a file or a folder.
        seed: decides what `glyphs:SCRIPT` renders; no other form depends on it.
        train_images: how many pictures `glyphs:SCRIPT` renders to train on, 400 by default.

    Raises:
        DataError: the source is of no known form, or its layout is not sound.
    """
    if source == "sklearn:digits":
        return Source(pictures=tuple(_scanned_digits()), default_train_images=300)
    if isinstance(source, str) and source.startswith("glyphs:"):
        script = source.removeprefix("glyphs:")
        return Source(pictures=tuple(_rendered_glyphs(script, seed, train_images)))
    if os.path.isdir(source):
        return Source(pictures=tuple(_read_folder(Path(source))))
    if Path(source).suffix.lower() in (".csv", ".tsv"):
        return Source(pictures=tuple(_read_table(Path(source))))
    what = "is neither a folder nor a table" if os.path.exists(source) else "does not exist"
    raise DataError(f"The data source {str(source)!r} {what}; expected {FORMS}.")


def folders_of_images(source: str | Path) -> list[Path]:
    """Return the folders whose every image counts: those of the classes, and what holds them.

    Raises:
        DataError: a folder that cannot be listed.
    """
    if not os.path.isdir(source):
        return []
    folder = Path(source)
    split = _SIDES.keys() <= set(_folders(folder))
    roots = [folder / side for side in _SIDES] if split else [folder]
    return [*roots, *(root / name for root in roots for name in _folders(root))]


def name_some(names: Sequence[str], *, most: int = 10) -> str:
    """Join the first names for a message, and count those left out."""
    rest = len(names) - most
    return (", ".join(names[:most]) or "none") + (f" and {rest} more" if rest > 0 else "")


def _read_folder(folder: Path) -> Iterator[Picture]:
    names = _folders(folder)
    if _SIDES.keys() <= set(names):
        train, val = _class_folders(folder / "train"), _class_folders(folder / "val")
        if train != val:
            raise DataError(
                f"The classes of {folder}/train and {folder}/val differ: "
                f"only in train: {name_some(sorted(set(train) - set(val)))}; "
                f"only in val: {name_some(sorted(set(val) - set(train)))}.",
                hint="Give every class a folder of images on both sides.",
            )
        yield from _read_classes(folder, train, side="train")
        yield from _read_classes(folder, val, side="val")
    elif names and _SPLIT_NAMES.issuperset(names):
        # Taken for classes, these would train a model that tells "train" from "test".
        raise DataError(
            f"{folder} holds {name_some(names)}; expected train and val, "
            "or one folder for each class.",
            hint="Rename the folder to validate on to val, or pass a folder of class folders "
            "to have it split.",
        )
    else:
        yield from _read_classes(folder, _class_folders(folder))


def _class_folders(folder: Path) -> list[str]:
    names = _folders(folder)
    if not names:
        raise DataError(
            f"{folder} has no class folders; expected one folder of images for each class.",
            hint="Move the images of a class into a folder that bears the class's name.",
        )
    for name in names:
        # Python stands in surrogates for bytes that are not UTF-8; no adapter could store them.
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise DataError(f"The class folder {name!r} in {folder} has a name that is not UTF-8.")
    return names


def _read_classes(
    folder: Path, labels: list[str], *, side: Side | None = None
) -> Iterator[Picture]:
    for label in labels:
        inside = f"{side}/{label}" if side else label
        paths = list(_image_paths(folder / inside, inside, seen=set()))
        if not paths:
            raise DataError(
                f"The class folder {folder / inside} holds no images; expected at least one file "
                f"ending in {name_some(sorted(IMAGE_SUFFIXES))}.",
                hint="Add images of the class, or remove the folder.",
            )
        for path in paths:
            yield Picture(name=path, label=label, image=folder / path, side=side)


def _image_paths(folder: Path, prefix: str, *, seen: set[str]) -> Iterator[str]:
    """Yield the images below `folder`, as `prefix/...`; `seen` ends loops of symbolic links."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for name in _visible(folder):
        inside = folder / name
        if os.path.isdir(inside):
            yield from _image_paths(inside, f"{prefix}/{name}", seen=seen)
        # A broken link is kept: it is reported as unreadable rather than left out in silence.
        elif inside.suffix.lower() in IMAGE_SUFFIXES and (
            os.path.isfile(inside) or os.path.islink(inside)
        ):
            yield f"{prefix}/{name}"


def _folders(folder: Path) -> list[str]:
    return [name for name in _visible(folder) if os.path.isdir(folder / name)]


def _visible(folder: Path) -> list[str]:
    """Return the names in `folder` that are not hidden, sorted by code point."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise DataError(f"The folder {folder} cannot be listed: {error.strerror}.") from error


def _read_table(table: Path) -> Iterator[Picture]:
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
        problem = None
        if len(cells) != len(header):
            problem = f"{len(cells)} cells; expected {len(header)}, as in the header"
        elif not row["label"]:
            problem = "the label is empty"
        elif "split" in row and row["split"] not in _SIDES:
            problem = f"the split is {row['split']!r}; expected train or val"
        elif not os.path.isfile(file):
            problem = f"there is no file {row['path']!r} in {table.parent}"
        elif path in first_line:
            problem = f"{row['path']!r} stands on line {first_line[path]} already"
        if problem is not None:
            raise DataError(f"{table}, line {line}: {problem}.")
        first_line[path] = line
        side = _SIDES[row["split"]] if "split" in row else None
        yield Picture(name=row["path"], label=row["label"], image=file, side=side)


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


def _scanned_digits() -> Iterator[Picture]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scans count ink in 0..16.
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for i, (pixels, target) in enumerate(zip(grey, digits.target, strict=True)):
        image = np.repeat(pixels[:, :, None], 3, axis=2)
        yield Picture(name=f"digits/{i}", label=str(target), image=image)


def _rendered_glyphs(script: str, seed: int, train_images: int | None) -> Iterator[Picture]:
    # Imported here because it loads matplotlib.
    from gatehub.training.glyphs import SCRIPTS, render_glyphs

    if script not in SCRIPTS:
        raise DataError(
            f"There is no script {script!r} for glyphs:SCRIPT; "
            f"expected one of {', '.join(sorted(SCRIPTS))}."
        )
    # Twice the seed and the odd number after it: no run validates on what another trains on.
    sides: tuple[tuple[Side, int, int], ...] = (
        ("train", GLYPH_TRAIN_IMAGES if train_images is None else train_images, 2 * seed),
        ("val", GLYPH_VAL_IMAGES, 2 * seed + 1),
    )
    for side, count, side_seed in sides:
        images, targets = render_glyphs(
            SCRIPTS[script], count=count, size=GLYPH_SIZE_PX, seed=side_seed
        )
        for i, (image, target) in enumerate(zip(images, targets, strict=True)):
            name, label = f"glyphs/{side}/{i}", SCRIPTS[script][target]
            yield Picture(name=name, label=label, image=image, side=side)
