"""Networks as if fine-tuned from a tiny backbone, and images for them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gatehub.backbone import Backbone
from gatehub.training.methods.network import copy_weights, describe_network, draw_network
from gatehub.training.methods.whole import WholeModel
from tests.tiny import make_backbone, settle_norms

LABELS = ("blue", "green", "red")


def make_described() -> Backbone:
    """The tiny one, with what timm needs to build it again."""
    arguments = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
    return Backbone(make_backbone().model, arguments=arguments)


def fine_tune(
    backbone: Backbone,
    folder: Path,
    *,
    moved: float = 0.3,
    norms: bool = False,
    labels: tuple[str, ...] = LABELS,
    info: dict[str, object] | None = None,
) -> Path:
    """Write a network whose weights have moved by a share of their spread, as timm does."""
    config = describe_network(backbone, labels, backbone.preprocessing)
    net = draw_network(backbone, config, seed=3)
    theirs = backbone.model.state_dict()
    copy_weights(backbone, net, {n: t for n, t in theirs.items() if not n.startswith("fc.")})
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += moved * parameter.std() * noise
        net.get_parameter("fc.weight").mul_(5)
    if norms:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            settle_norms(net)
    model = WholeModel(net, backbone, config, preprocessing=backbone.preprocessing, norm="affine")
    folder.mkdir(parents=True)
    for name, content in model.files().items():
        (folder / name).write_bytes(content)
    if info is not None:
        (folder / "gatehub.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def write_images(folder: Path, *, count: int = 40, classes: tuple[str, ...] = ("",)) -> Path:
    """Noisy pictures of 32 x 32 pixels, in class folders if there are classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    for number, picture in enumerate(pixels):
        place = folder / classes[number % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        picture[:, :, number % 3] //= 3
        Image.fromarray(picture).save(place / f"{number}.png")
    return folder
