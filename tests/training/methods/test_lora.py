"""The network that `--method lora` trains, held against PEFT's own and against the formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gatehub.backbone import Backbone
from gatehub.training.methods.lora import make_lora
from gatehub.training.methods.network import copy_weights, describe_network, draw_network
from tests.tiny import random_images
from tests.training.distillation.networks import LABELS, make_described

peft = pytest.importorskip("peft")


def draw(backbone: Backbone) -> nn.Module:
    """A network with the backbone's weights, and a head drawn from a seed."""
    config = describe_network(backbone, LABELS, backbone.preprocessing)
    net = draw_network(backbone, config, seed=5)
    theirs = backbone.model.state_dict()
    copy_weights(backbone, net, {n: t for n, t in theirs.items() if not n.startswith("fc.")})
    return net.eval()


def test_its_logits_are_those_of_pefts_own_model(tmp_path: Path) -> None:
    backbone, rank = make_described(), 3
    model = make_lora(
        draw(backbone), backbone, LABELS, rank=rank, preprocessing=backbone.preprocessing
    )
    images = random_images(4)
    before = model(images)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for values in (*model.gate_parameters().values(), *model.head_parameters().values()):
            values.add_(0.1 * torch.randn(values.shape, generator=generator))
    for name, content in model.files().items():
        (tmp_path / name).write_bytes(content)

    theirs = peft.PeftModel.from_pretrained(draw(backbone), str(tmp_path)).eval()

    with torch.no_grad():
        logits = model(images)
        assert (logits - before).abs().max() > 0.1
        assert torch.equal(theirs(images), logits)
        merged = theirs.merge_and_unload()
        torch.testing.assert_close(merged(images), logits, rtol=1e-4, atol=1e-4)
    # W' = W + B A, arXiv 2106.09685, with a scale of 1.
    parts = model.gate_parameters()
    for name in ("conv1", "layer3.0.conv2"):
        a, b = (
            next(t for n, t in parts.items() if n.startswith(f"{name}.lora_{part}."))
            for part in "AB"
        )
        update = torch.einsum("or,rihw->oihw", b[:, :, 0, 0], a)
        weight = backbone.model.get_submodule(name).weight + update
        torch.testing.assert_close(merged.get_submodule(name).weight, weight)
