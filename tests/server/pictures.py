"""Seeded pictures in any format, and what an engine says about them without a server."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, *, size: tuple[int, int] = (40, 30), format: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), format)


def encode(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def offline(engine: Any, task: str, encoded: bytes) -> list[tuple[str, float]]:
    """Decode, transform and predict outside the server: (label, probability), best first."""
    info = engine.task(task)
    image = info.preprocessing.transform()(encoded).unsqueeze(0)
    scores = engine.predict(task, image)[0].softmax(dim=-1).tolist()
    return sorted(zip(info.labels, scores, strict=True), key=lambda pair: -pair[1])


def pairs(answer: Any) -> list[tuple[str, float]]:
    return [(entry["label"], entry["score"]) for entry in answer]
