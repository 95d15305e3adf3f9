"""Data sets that lie in a folder, of single-coloured images."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

datasets = pytest.importorskip("datasets")


def encode(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, 0, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def save(folder: Path, **splits: Any) -> str:
    """Write splits as files of Parquet, as the Hub has them."""
    for name, split in splits.items():
        folder.mkdir(parents=True, exist_ok=True)
        split.to_parquet(str(folder / f"{name}-00000-of-00001.parquet"))
    return f"hf:{folder}"
