"""A network whose kernels oneDNN wants in other orders for other sizes of images."""

from __future__ import annotations

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from tests.tiny import make_backbone, make_trained


def make_wide_backbone() -> Backbone:
    return make_backbone(
        "resnet18",
        layers=(1, 1, 1, 1),
        channels=(64, 64, 96, 128),
        num_classes=10,
        pretrained_cfg_overlay={"input_size": (3, 64, 64), "crop_pct": 1.0},
    )


def make_wide_task(backbone: Backbone, task: str) -> Adapter:
    seed = sum(map(ord, task))
    return Adapter.from_model(make_trained(backbone, seed=seed), task=task)
