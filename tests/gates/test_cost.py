from __future__ import annotations

import pytest
import torch
from torch import nn

from gatehub.adapter import Adapter
from gatehub.backbone import build_structure
from gatehub.backbone.classifier import split_classifier
from gatehub.errors import GateError, SiteError
from gatehub.gates.cost import BackboneSize, measure_backbone
from tests.tiny import OneLayer, make_backbone, make_trained


def measure(name: str, **choices: str) -> BackboneSize:
    model = build_structure(name)
    heads, _ = split_classifier(model)
    return measure_backbone(model, heads=heads, **choices)


def test_values_and_bytes_are_counted_by_hand() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1, bias=False))
    with torch.device("meta"):
        model = OneLayer(layers, 16, classes=5).to("meta")
    size = measure_backbone(model, heads=("fc",))
    assert size.values == (3 * 8 * 9 + 8) + 16 + 8 * 16
    assert size.classifier_values == 16 * 5 + 5
    assert size.checkpoint_bytes == 4 * (size.values + size.classifier_values)
    full, scale = size.tasks["full"], size.tasks["scale"]
    assert (full.gate_values, full.norm_values) == (3 * 8 + 8 * 16, 16)
    assert (full.values, full.bytes) == (24 + 128 + 16, 2 * (24 + 128) + 4 * 16)
    assert scale.gate_values == 3 + 8 + 8 + 16
    assert list(size.tasks) == ["auto", "full", "lowrank:4", "scale"]


@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
def test_what_is_counted_is_what_an_adapter_holds(norm: str) -> None:
    backbone = make_backbone()
    model = make_trained(backbone, norm=norm)
    adapter = Adapter.from_model(model, task="birds")
    head = sum(p.numel() for p in model.head_parameters().values())
    size = measure_backbone(backbone.model, heads=backbone.heads, norm=norm)
    assert sum(t.numel() for t in adapter.tensors.values()) == size.tasks["auto"].values + head


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("resnet18", 0.15),
        ("resnet34", 0.15),
        ("repvgg_a0", 0.15),
        ("efficientnet_b0", 0.08),
        ("mobilenetv2_050", 0.08),
        ("mobilenetv3_small_050", 0.08),
        ("mobilenetv3_large_100", 0.08),
        ("convnext_atto", 0.08),
        ("convnext_tiny", 0.08),
        ("regnety_002", 0.08),
        ("regnety_004", 0.08),
        ("densenet121", 0.08),
        ("tinynet_e", 0.08),
    ],
)
def test_auto_keeps_adapters_small(name: str, share: float) -> None:
    size = measure(name)
    assert size.tasks["auto"].values <= share * size.values
    assert size.tasks["auto"].bytes <= share / 2 * size.checkpoint_bytes


def test_a_stage_and_a_mode_count(tiny_backbone_size: BackboneSize) -> None:
    late = measure("demo", start="layer4", norm="frozen")
    assert len(late.sites) < len(tiny_backbone_size.sites)
    assert late.tasks["auto"].norm_values == 0
    assert late.values == tiny_backbone_size.values
    with pytest.raises(SiteError, match="has no stage 'layer9'"):
        measure("demo", start="layer9")
    with pytest.raises(GateError, match="Normalisation mode is 'none'"):
        measure("demo", norm="none")


@pytest.fixture
def tiny_backbone_size() -> BackboneSize:
    return measure("demo")
