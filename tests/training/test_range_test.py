"""A range test shows what rates do, and leaves nothing but a picture."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from PIL import Image

from gatehub.backbone import Backbone
from gatehub.errors import TrainingError
from gatehub.gates.attach import attach_gates
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.range_test import RateRange, draw_range, sweep_rates
from gatehub.training.recipe import Recipe
from gatehub.training.start import begin
from tests.training.tasks import colour_data

RECIPE = Recipe(batch_size=16, seed=3)


def valley(depth: float, *, count: int = 40) -> RateRange:
    """A sweep whose loss is lowest at 0.1."""
    rates = [10 ** (-5 + 5 * step / count) for step in range(count)]
    losses = [1 - depth * math.exp(-((math.log10(rate) + 1) ** 2)) for rate in rates]
    return RateRange(rates=rates, losses=losses, found=0.02)


def test_the_lowest_place_is_found() -> None:
    found = valley(0.5)
    assert found.lowest is not None
    assert 0.05 < found.lowest < 0.4  # the mean lags behind
    assert found.suggested == pytest.approx(found.lowest / 10, rel=0.05)
    assert len(found.smoothed) == len(found.losses)
    assert found.smoothed[0] == found.losses[0]


def test_what_chance_could_have_done_is_no_place() -> None:
    found = valley(0.02)
    assert found.lowest is None
    assert found.suggested is None


def test_a_sweep_begins_as_a_run_does_and_repeats(tiny_backbone: Backbone) -> None:
    data, told = colour_data(), []
    first = sweep_rates(
        tiny_backbone, data, recipe=RECIPE, progress=lambda done, of: told.append((done, of))
    )
    assert told == [(step, 60) for step in range(1, len(first.losses) + 1)]
    assert list(first.rates) == sorted(first.rates)
    assert first.rates[0] == pytest.approx(1e-5)
    assert all(math.isfinite(loss) for loss in first.losses)
    assert len(first.losses) == 60 or first.losses[-1] > 4
    given = Recipe(batch_size=16, seed=3, gate_rate=0.5)
    assert sweep_rates(tiny_backbone, data, recipe=given) == first
    model = attach_gates(tiny_backbone, labels=data.labels)
    watched = evaluation_batches(data.val, model.preprocessing.transform())
    seed_everything(RECIPE.seed)
    assert first.found == begin(model, data, RECIPE, watched=watched).choices.gate_rate


def test_normalisation_values_alone_are_swept_and_named(tiny_backbone: Backbone) -> None:
    found = sweep_rates(tiny_backbone, colour_data(), recipe=RECIPE, gates="none")
    assert (found.learned, found.found > 0) == ("normalisation values", True)
    assert draw_range(found, title="t") != draw_range(replace(found, learned="gates"), title="t")
    with pytest.raises(TrainingError, match="nothing but the head would be learned"):
        sweep_rates(tiny_backbone, colour_data(), recipe=RECIPE, gates="none", norm="frozen")


def test_the_picture() -> None:
    picture = draw_range(valley(0.5), title="Rates for t")
    assert picture == draw_range(valley(0.5), title="Rates for t")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (1120, 640)
    assert draw_range(valley(0.0), title="Rates for t") != picture
    lone = RateRange(rates=[1e-5], losses=[0.0], found=1e-6)
    assert draw_range(lone, title="Rates for t")
