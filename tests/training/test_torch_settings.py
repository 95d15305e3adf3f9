"""What the host program has set changes no training, and nothing of the host is changed."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter
from tests.backbone.test_torch_settings import THREAD, default_dtype
from tests.training.tasks import colour_data

SETTINGS = (*THREAD.values(), default_dtype, torch.no_grad)
Drawn = tuple[float, float, float]


def draw() -> Drawn:
    return random.random(), float(np.random.random()), float(torch.rand((), device="cpu"))


def test_an_adapter_and_the_host_are_the_same_whatever_the_host_has_set(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    def train(name: str, origin: Adapter | None = None) -> Adapter:
        data, recipe = colour_data(16, 6), Recipe(epochs=1, batch_size=8, gate_rate=0.01)
        out = tmp_path / name
        options = {"recipe": recipe, "gates": "scale", "init_from": origin}
        return train_adapter(tiny_backbone, data, out, task="t", **options).adapter  # type: ignore[arg-type]

    expected = train("a").digest
    with ExitStack() as held:
        for setting in SETTINGS:
            held.enter_context(setting())
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        would = draw()
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        assert train("b").digest == expected
        assert draw() == would
        loaded = Adapter.load(tmp_path / "b")
    train("c", loaded)  # tensors of inference mode are gone on from, too


@pytest.mark.parametrize("wanted", [False, True])
def test_deterministic_algorithms_are_the_hosts_choice(wanted: bool) -> None:
    torch.use_deterministic_algorithms(wanted)
    try:
        with set_host_aside():
            assert torch.are_deterministic_algorithms_enabled() is wanted
    finally:
        torch.use_deterministic_algorithms(False)
