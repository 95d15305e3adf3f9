"""Fixtures that more than one room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel
from tests.tiny import make_backbone, make_trained


@pytest.fixture(scope="session")
def tiny_backbone() -> Backbone:
    """A ResNet of 46 thousand values for 32 x 32 images; nothing may change it."""
    return make_backbone()


@pytest.fixture
def trained_model(tiny_backbone: Backbone) -> GatedModel:
    """A task with three labels on `tiny_backbone`, every tensor of it moved off its start."""
    return make_trained(tiny_backbone)


@pytest.fixture(scope="session")
def tiny_adapter(tiny_backbone: Backbone) -> Adapter:
    """The task "birds" with three labels on `tiny_backbone`."""
    return Adapter.from_model(
        make_trained(tiny_backbone),
        task="birds",
        metrics={"accuracy": 0.5},
        training={"epochs": 1, "seed": 0},
    )


@pytest.fixture
def adapter_folder(tiny_adapter: Adapter, tmp_path: Path) -> Path:
    """`tiny_adapter` as a folder of the test's own, gates as float32."""
    return tiny_adapter.save(tmp_path / "birds", dtype="float32")
