"""Tasks on tiny backbones of the families that translate differently, and their exports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from timm.layers import GroupNormAct, StdConv2d
from timm.models.resnetv2 import ResNetV2

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.export import ExportReport, export_onnx
from gatehub.gates.attach import GatedModel
from tests.tiny import make_backbone, make_trained, settle_norms

LABELS = ("gull", "heron", "wading bird", "Möwe")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A task, and what became of it."""

    backbone: Backbone
    model: GatedModel
    adapter: Adapter
    report: ExportReport


def export(backbone: Backbone, path: Path, **options: int) -> Exported:
    """Draw a task that changes every part of the backbone, and export it."""
    model = make_trained(backbone, labels=LABELS, norm="stats")
    adapter = Adapter.from_model(model, task="birds")
    report = export_onnx(backbone, adapter, path, **options)
    return Exported(backbone=backbone, model=model, adapter=adapter, report=report)


def make_resnet() -> Backbone:
    """Convolutions with batch norm, and an input that is not square."""
    return make_backbone(
        "resnet18",
        layers=(1, 1, 1, 1),
        channels=(8, 12, 16, 20),
        num_classes=7,
        pretrained_cfg_overlay={"input_size": (3, 48, 64)},
    )


def make_standardised() -> Backbone:
    """As timm's BiT: standardised kernels, group norm, zero padding before a max pooling."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNetV2(
            (1, 1),
            channels=(8, 16),
            num_classes=7,
            stem_chs=8,
            stem_type="fixed",
            conv_layer=partial(StdConv2d, eps=1e-8),
            norm_layer=partial(GroupNormAct, num_groups=4),
        )
        settle_norms(model)
    model.pretrained_cfg = {"input_size": (3, 32, 32)}
    return Backbone(model)


def make_depthwise() -> Backbone:
    """Depthwise convolutions, pointwise linear layers and layer norm."""
    return make_backbone(
        "convnext_tiny",
        depths=(1, 1, 1, 1),
        dims=(8, 12, 16, 20),
        num_classes=7,
        pretrained_cfg_overlay={"input_size": (3, 32, 32)},
    )
