"""A hand-made adapter of a few exact numbers; `golden` holds it as it must be stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatehub.adapter import Adapter, AdapterConfig
from gatehub.adapter.probe import Probe
from gatehub.backbone import BackboneIdentity
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import GateLayout, SiteGate

GOLDEN = Path(__file__).parent / "golden"
CONFIG, TENSORS, CARD = "config.json", "gates.safetensors", "README.md"

LAYOUT = GateLayout(
    policy="auto",
    start=None,
    norm="stats",
    sites={
        "conv1": SiteGate(kind=parse_kind("full"), shape=(2, 3)),
        "layer1.0.conv1": SiteGate(kind=parse_kind("lowrank:2"), shape=(4, 2)),
        "layer1.0.conv2": SiteGate(kind=parse_kind("scale"), shape=(2, 4)),
    },
)
SAMPLE_CONFIG = AdapterConfig(
    task="fruit",
    labels=("apple", "梨"),
    backbone=BackboneIdentity(
        architecture="resnet18",
        tag="a1_in1k",
        source="timm",
        revision="0123456789abcdef0123456789abcdef01234567",
        digest="0123456789abcdef" * 4,
    ),
    layout=LAYOUT,
    preprocessing=Preprocessing(
        input_size=(3, 32, 48),
        mean=(0.5, 0.25, 0.125),
        std=(0.5, 0.5, 1.0),
        interpolation="bicubic",
        crop_pct=0.875,
        crop_mode="center",
    ),
    metrics={"accuracy": 0.75},
    training={"method": "gates", "epochs": 3, "rate": 0.5, "mixup": False, "guide": None},
    tensors={},
    files={},
)
# What the sample would have answered, if it had a backbone.
PROBE = Probe(seed=0, dtype="float16", logits=((1.5, -2.25), (0.1, 1e-30), (3.0, -0.0)))


def sample_tensors() -> dict[str, Tensor]:
    """Multiples of 1/16 from -1.5 to 1.5, which every stored dtype holds exactly."""
    shapes = {
        **LAYOUT.gate_shapes(),
        **{f"bn1.{part}": (2,) for part in ("weight", "bias", "running_mean", "running_var")},
        "head.weight": (2, 4),
        "head.bias": (2,),
    }
    tensors, count = {}, 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        tensors[name] = (torch.arange(count, count + size) % 49 - 24).reshape(shape) / 16
        count += size
    tensors["bn1.running_var"].abs_()
    return tensors


def make_sample(*, tensors: Mapping[str, Tensor] | None = None, **changes: Any) -> Adapter:
    """The sample adapter, with other tensors or other fields of the config."""
    return Adapter(
        config=replace(SAMPLE_CONFIG, **changes),
        tensors=sample_tensors() if tensors is None else tensors,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
