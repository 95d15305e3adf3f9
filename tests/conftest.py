"""Fixtures that more than one room's tests share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.gates.attach import GatedModel
from tests.hub_server.serve import TestHub, serve_hub
from tests.hub_server.state import TOKEN
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


@pytest.fixture
def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    """A Hub, and a user who is logged in there; waits between retries are cut short."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GATEHUB_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
    with serve_hub() as hub:
        yield hub
