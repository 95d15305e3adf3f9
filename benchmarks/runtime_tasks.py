"""Tasks with random values for the benchmarks of the runtime."""

from __future__ import annotations

import timm
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.gates.attach import attach_gates
from gatehub.runtime.engine import Engine

MAIN, POINTWISE = "resnet18", "efficientnet_b0"
LABELS = tuple(f"class{number}" for number in range(10))


def make_backbone(name: str) -> Backbone:
    """A backbone with random weights, the same ones each time."""
    torch.manual_seed(0)
    return Backbone(timm.create_model(name, pretrained=False), source="seed:0")


def make_adapter(
    backbone: Backbone, *, seed: int, gates: str = "auto", start: str | None = None
) -> Adapter:
    """A task whose gates, norm values and head have all moved, stored as float16 would be."""
    torch.manual_seed(seed)
    model = attach_gates(backbone, labels=LABELS, gates=gates, start=start)
    with torch.no_grad():
        for tensor in model.task_tensors().values():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return Adapter.from_model(model, task=f"task{seed}")


def random_images(batch: int, backbone: Backbone) -> torch.Tensor:
    """Images (batch, 3, H, W) float32."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *backbone.preprocessing.input_size, generator=generator)


def make_engine(backbone: Backbone, dtype: str, **tasks: Adapter) -> Engine:
    """An engine that serves these tasks, by name."""
    engine = Engine(backbone, dtype=dtype)
    for name, adapter in tasks.items():
        engine.load(name, adapter)
    return engine
