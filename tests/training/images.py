"""Small image files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def write_images(root: Path, *names: str) -> Path:
    """Write a 4x4 picture at each name below `root`, every one in a colour of its own."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number % 256, 0, 90)).save(path)
    return root


def numbered(folder: str, count: int) -> list[str]:
    """Return `folder/0.png`, `folder/1.png`, ..."""
    return [f"{folder}/{number}.png" for number in range(count)]
