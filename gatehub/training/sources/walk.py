"""Walking a folder of images: what counts as an image, and what is passed over and why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gatehub.backbone.images import IMAGE_FORMATS, is_image
from gatehub.errors import DataError
from gatehub.training.sources.pictures import LeftOut
from gatehub.training.sources.products import is_product

# Taken by their name; every other file is an image if it begins as one.
IMAGE_SUFFIXES = frozenset(
    {
        *(".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"),
        *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
        *((".avif",) if "AVIF" in IMAGE_FORMATS else ()),
    }
)
# What archivers, file servers and desktops leave behind; some of it holds copies of the images.
_DEBRIS = frozenset(
    {
        *("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "__pycache__"),
        "system volume information",
    }
)

HIDDEN = "hidden or left behind by other programs"
PRODUCT = "an adapter, or a training run's state"
NO_IMAGE = "not an image that can be decoded"
LOOSE = "in no class folder"
BESIDE = "beside the split"
UNLABELLED = "without class folders, so without labels"


@dataclass(frozen=True, slots=True)
class Listed:
    """What lies in a folder, sorted by code point, without what is passed over."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class Walk:
    """A walk through a folder, which remembers what it passed over.

    Args:
        root: the folder; all paths are relative to it, with forward slashes, and "" is itself.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, Listed] = {}
        self._left_out: dict[str, dict[str, None]] = {}

    def look(self, inside: str = "") -> Listed:
        """Return what lies in a folder.

        Raises:
            DataError: it cannot be listed.
        """
        if inside not in self._listed:
            self._listed[inside] = self._scan(inside)
        return self._listed[inside]

    def folders(self, inside: str = "") -> list[str]:
        """Return the names of the folders in a folder that may hold data."""
        found = []
        for name in self.look(inside).folders:
            path = join(inside, name)
            if name.startswith(".") or name.lower() in _DEBRIS:
                self.leave_out(HIDDEN, f"{path}/")
            elif is_product(self.look(path).files):
                self.leave_out(PRODUCT, f"{path}/")
            else:
                found.append(name)
        return found

    def images(self, inside: str) -> list[str]:
        """Return the paths of the images in a folder and all folders below it."""
        return list(self._images(inside, seen=set()))

    def has_images(self, inside: str) -> bool:
        """Whether a folder itself holds an image."""
        return any(self._is_image(join(inside, name)) for name in self.look(inside).files)

    def leave_out(self, why: str, path: str) -> None:
        """Remember that a file or a folder is not used."""
        self._left_out.setdefault(why, {})[path] = None

    def leave_out_files(self, why: str, inside: str) -> None:
        """Remember that the images in a folder itself are not used."""
        for name in self.look(inside).files:
            if self._is_image(path := join(inside, name)):
                self.leave_out(why, path)

    def left_out(self) -> tuple[LeftOut, ...]:
        """Return what was passed over until now."""
        return tuple(
            LeftOut(why=why, names=tuple(sorted(names))) for why, names in self._left_out.items()
        )

    def _images(self, inside: str, *, seen: set[str]) -> Iterator[str]:
        real = os.path.realpath(self.root / inside)
        if real in seen:  # a loop of symbolic links
            return
        seen.add(real)
        folders = set(self.folders(inside))
        listed = self.look(inside)
        for name in sorted({*folders, *listed.files}):
            path = join(inside, name)
            if name in folders:
                yield from self._images(path, seen=seen)
            elif self._is_image(path):
                yield path
            else:
                self.leave_out(NO_IMAGE, path)

    def _is_image(self, path: str) -> bool:
        file = os.path.join(self.root, path)
        if os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES:
            # A broken link is kept: it is reported as unreadable rather than left out.
            return os.path.isfile(file) or os.path.islink(file)
        return os.path.isfile(file) and is_image(Path(file))

    def _scan(self, inside: str) -> Listed:
        folder = self.root / inside
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    # A link may lead in a circle, which only os.path bears.
                    if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                        folders.append(entry.name)
                    elif not entry.name.startswith("."):
                        files.append(entry.name)
                    elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                        self.leave_out(HIDDEN, join(inside, entry.name))
        except OSError as error:
            raise DataError(f"The folder {folder} cannot be listed: {error.strerror}.") from error
        return Listed(tuple(sorted(folders)), tuple(sorted(files)))


def join(inside: str, name: str) -> str:
    """Return the path of what lies in a folder."""
    return f"{inside}/{name}" if inside else name
