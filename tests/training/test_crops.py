"""How small a random crop may be."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import attach_gates
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData
from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe
from gatehub.training.start import begin, crops
from gatehub.training.start.crops import CROPS, LARGE, MAX_IMAGES, choose_crop, halve
from gatehub.training.start.head_inputs import gather_inputs
from tests.training.tasks import LABELS, colour_data, light_data


def squares(count: int) -> Examples:
    """Images whose class is the size of a square in their middle."""
    generator = np.random.default_rng(0)
    targets = [i % len(LABELS) for i in range(count)]
    pixels = generator.integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
    for i, target in enumerate(targets):
        inner = slice(11 - 4 * target, 21 + 4 * target)
        pixels[i, inner, inner] += 150
    return Examples(
        names=tuple(map(str, range(count))), targets=tuple(targets), sources=tuple(pixels)
    )


def choose(backbone: Backbone, data: ImageData, recipe: Recipe, *, workers: int = 0) -> float:
    model = attach_gates(backbone, labels=data.labels)
    watched = list(evaluation_batches(data.val, model.preprocessing.transform()))
    return begin(model, data, recipe, watched=watched, workers=workers).choices.min_crop


def test_crops_are_small_where_any_part_of_an_image_tells_its_class(
    tiny_backbone: Backbone,
) -> None:
    assert choose(tiny_backbone, colour_data(90), Recipe()) == CROPS[0]
    assert choose(tiny_backbone, light_data(90), Recipe()) == CROPS[0]


def test_crops_are_large_where_a_part_is_not_enough(tiny_backbone: Backbone) -> None:
    data = replace(colour_data(), train=squares(120))
    assert choose(tiny_backbone, data, Recipe()) > CROPS[0]
    assert choose(tiny_backbone, data, Recipe(min_crop=CROPS[0])) == CROPS[0]


@pytest.mark.parametrize(
    ("read", "chosen"),
    [
        ((0.85, 0.0, 1.0), 0.25),
        ((0.84, 0.85, 1.0), 0.4),
        ((0.5, 0.84, 1.0), 0.7),
        ((0.0, 0.0, 0.0), 0.7),
    ],
)
def test_the_smallest_crop_is_chosen_of_which_enough_is_read(
    tiny_backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    read: tuple[float, ...],
    chosen: float,
) -> None:
    def give_crop(_: Recipe, __: Preprocessing, *, min_crop: float) -> float:
        return min_crop

    figures = dict(zip(CROPS, read, strict=True))
    model, data = attach_gates(tiny_backbone, labels=LABELS), colour_data(60)
    images = evaluation_batches(data.train, model.preprocessing.transform())
    inputs = gather_inputs(model, images)
    monkeypatch.setattr(Recipe, "augment", give_crop)
    monkeypatch.setattr(crops, "evaluation_batches", lambda _, crop, **__: crop)
    monkeypatch.setattr(
        crops, "evaluate", lambda _, crop, **__: SimpleNamespace(accuracy=figures[crop])
    )
    found = choose_crop(model, data, data.train, inputs, Recipe(), strengths={"fc": 1.0})
    assert found == chosen


def test_crops_are_large_where_nothing_can_be_said(tiny_backbone: Backbone) -> None:
    assert choose(tiny_backbone, colour_data(39), Recipe()) == LARGE
    lonely = colour_data(150).train
    lonely = lonely.take([i for i, target in enumerate(lonely.targets) if i == 1 or target == 0])
    data = replace(colour_data(), train=lonely)
    assert choose(tiny_backbone, data, Recipe()) == LARGE


def test_the_choice_is_the_same_however_many_workers_decode(tiny_backbone: Backbone) -> None:
    for data in (replace(colour_data(), train=squares(120)), colour_data(60)):
        found = {choose(tiny_backbone, data, Recipe(seed=3), workers=w) for w in (0, 2)}
        assert len(found) == 1


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_halves_share_out_each_class(counts: list[int], seed: int) -> None:
    targets = tuple(kind for kind, count in enumerate(counts) for _ in range(count))
    names = tuple(map(str, range(len(targets))))
    halves = halve(Examples(names=names, targets=targets, sources=names), seed=seed)
    if halves is None:
        assert len(targets) < 40 or sum(count > 1 for count in counts) < 2
        return
    one, other = halves
    assert sorted(one + other) == list(range(len(targets)))
    shares = [Counter(targets[index] for index in half) for half in halves]
    assert all(abs(shares[0][kind] - shares[1][kind]) <= 1 for kind in range(len(counts)))


@pytest.mark.parametrize("seed", [0, 1])
def test_of_many_images_some_are_drawn(seed: int) -> None:
    names = tuple(map(str, range(2 * MAX_IMAGES)))
    halves = halve(Examples(names=names, targets=(0, 1) * MAX_IMAGES, sources=names), seed=seed)
    assert halves is not None
    assert len({*halves[0], *halves[1]}) == MAX_IMAGES
