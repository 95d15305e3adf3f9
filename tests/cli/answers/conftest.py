"""Adapters of the demo's backbone, made without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import load_backbone
from gatehub.gates.attach import attach_gates
from tests.tiny import disturb


def save_adapter(place: Path, labels: Sequence[str], **config: object) -> Path:
    """Save an adapter of the task that the folder is named after, its tensors moved."""
    backbone = load_backbone("demo")
    model = attach_gates(backbone, labels=labels, gates="scale")
    disturb(model)
    made = Adapter.from_model(model, task=place.name, **config)  # type: ignore[arg-type]
    return made.with_probe(backbone).save(place)


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task "marks" with the labels a, b and c."""
    return save_adapter(tmp_path_factory.mktemp("adapter") / "marks", ["a", "b", "c"])


@pytest.fixture(scope="session")
def weather(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second task on the same backbone."""
    return save_adapter(tmp_path_factory.mktemp("adapter") / "weather", ["rain", "snow"])
