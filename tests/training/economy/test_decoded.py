"""Images that are held in memory are those of the files, to the bit, and no more than fit."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gatehub.backbone import Backbone
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.training.batches import training_batches
from gatehub.training.data import load_data
from gatehub.training.economy.decoded import hold_decoded
from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.training.images import numbered, write_images

SIDE = 20  # pixels of a picture of `write`
ONE = 3 * SIDE * SIDE  # bytes of a held one


def write(folder: Path) -> Examples:
    """Pictures of every kind that a decoder changes: turned, transparent, 16 bits, grey, a palette.

    Examples of the files.
    """
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    colour = Image.fromarray(noise[..., :3])
    turned = Image.Exif()
    turned[0x0112] = 6
    pictures = {
        "turned.jpg": colour,
        "transparent.png": Image.fromarray(noise),
        "deep.png": Image.fromarray(noise[..., 0].astype(np.uint16) * 251),
        "grey.png": Image.fromarray(noise[..., 0]),
        "palette.gif": colour.quantize(16),
    }
    folder.mkdir(parents=True)
    for name, picture in pictures.items():
        picture.save(folder / name, **({"exif": turned} if name == "turned.jpg" else {}))
    return Examples(
        names=tuple(pictures),
        targets=tuple(range(len(pictures))),
        sources=tuple(folder / name for name in pictures),
    )


def count_held(examples: Examples) -> int:
    return sum(isinstance(source, np.ndarray) for source in examples.sources)


@pytest.mark.parametrize("rules", [ImageRules(background=(9, 200, 3)), None])
def test_what_is_drawn_from_held_images_is_the_same(
    tiny_backbone: Backbone, tmp_path: Path, rules: ImageRules | None
) -> None:
    preprocessing = replace(tiny_backbone.preprocessing, image_rules=rules)
    files = write(tmp_path / "files")
    if rules is None:  # which refuse 16 bits of grey
        kept = [i for i, name in enumerate(files.names) if name != "deep.png"]
        files = Examples(
            names=tuple(files.names[i] for i in kept),
            targets=tuple(range(len(kept))),
            sources=tuple(files.sources[i] for i in kept),
        )
    recipe = Recipe(hflip=0.5, color_jitter=0.3)

    def draw(examples: Examples) -> torch.Tensor:
        transform = recipe.augment(preprocessing, min_crop=0.3)
        batches = training_batches(examples, transform, batch_size=2, seed=1, epoch=3)
        plain = [preprocessing.transform()(source) for source in examples.sources]
        return torch.cat([torch.stack(plain), *(images for images, _ in batches)])

    expected = draw(files)
    held = hold_decoded(files, preprocessing, limit_bytes=10**6, workers=2)
    for source in files.sources:
        Path(source).unlink()  # type: ignore[arg-type]  # none is decoded again
    assert torch.equal(draw(held), expected)


def test_no_more_is_held_than_the_budget(tiny_backbone: Backbone, tmp_path: Path) -> None:
    files = write(tmp_path / "files")

    def hold(limit_bytes: int, workers: int = 0) -> Examples:
        return hold_decoded(
            files, tiny_backbone.preprocessing, limit_bytes=limit_bytes, workers=workers
        )

    assert [count_held(hold(n * ONE)) for n in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [count_held(hold(n * ONE - 1)) for n in range(1, 6)] == [0, 1, 2, 3, 4]
    assert [count_held(hold(n * ONE, workers=3)) for n in range(6)] == [0, 1, 2, 3, 4, 5]
    last = files.sources[-1]
    assert hold(4 * ONE).sources[-1] is last


def test_processes_that_are_given_copies_share_the_budget(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "files")
    spawning = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "get_context", lambda: spawning)

    def hold(workers: int) -> int:
        held = hold_decoded(
            files, tiny_backbone.preprocessing, limit_bytes=4 * ONE, workers=workers
        )
        return count_held(held)

    assert [hold(workers) for workers in (0, 1, 3, 4)] == [4, 2, 1, 0]


def test_an_adapter_is_the_same_whatever_is_held(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(
        tmp_path / "data",
        *(f"{side}/{label}" for side in ("train", "val") for label in numbered("a", 4)),
        *(f"{side}/{label}" for side in ("train", "val") for label in numbered("b", 4)),
    )
    data = load_data(str(root))
    opened: list[object] = []
    decode = Preprocessing.open

    def watch(preprocessing: Preprocessing, source: Path, **options: int) -> Image.Image:
        if isinstance(source, Path) and "train" in source.parts:
            opened.append(source)
        return decode(preprocessing, source, **options)

    monkeypatch.setattr(Preprocessing, "open", watch)
    recipe = Recipe(epochs=3, batch_size=4, keep="last")

    def run(name: str, decoded_bytes: int) -> bytes:
        out = tmp_path / name
        train_adapter(
            tiny_backbone, data, out, task="t", recipe=recipe, decoded_bytes=decoded_bytes
        )
        return (out / "gates.safetensors").read_bytes()

    held = run("held", 10**6)
    assert len(opened) == len(data.train)
    assert run("read", 0) == held
    assert len(opened) > 4 * len(data.train)
