"""Tasks without a gate, of a head and perhaps normalisation values, through the whole house."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.card_check import write_card
from gatehub.backbone import Backbone
from gatehub.errors import ConfigError, SiteError
from gatehub.gates.attach import attach_gates
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.parity import assert_parity
from tests.tiny import LABELS, make_backbone, make_trained, random_images

NORMS = ("frozen", "affine", "stats")


def make_task(backbone: Backbone, task: str, *, norm: str, gates: str = "none") -> Adapter:
    seed = sum(map(ord, task))
    return Adapter.from_model(make_trained(backbone, gates=gates, norm=norm, seed=seed), task=task)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_trained_is_the_head_and_the_norms(norm: str, tiny_backbone: Backbone) -> None:
    model = attach_gates(tiny_backbone, labels=LABELS, gates="none", norm=norm)
    assert model.layout.sites == {}
    assert model.gate_parameters() == {}
    assert bool(model.norm_parameters()) == (norm != "frozen")
    images = random_images()
    expected = tiny_backbone.model.forward_features(images)
    assert torch.equal(model.net.forward_features(images), expected)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("merge_norm", [False, True])
def test_a_task_answers_alike_wherever_it_runs(
    norm: str, merge_norm: bool, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    model = make_trained(tiny_backbone, gates="none", norm=norm)
    adapter = Adapter.from_model(model, task="birds")
    images = random_images(4)

    adapter.save(tmp_path / "birds")
    loaded = Adapter.load(tmp_path / "birds")
    write_card(tmp_path / "birds")
    assert Adapter.load(tmp_path / "birds").layout == model.layout
    folded = fold(tiny_backbone, loaded, merge_norm=merge_norm)
    assert_parity(folded(images), model(images))
    engine = Engine(tiny_backbone, dtype="float32")
    engine.load("birds", loaded)
    assert_parity(engine.predict("birds", images), model(images))


@pytest.mark.parametrize("norm", NORMS)
def test_tasks_without_gates_share_a_batch(norm: str, tiny_backbone: Backbone) -> None:
    tasks = {
        "rooks": make_task(tiny_backbone, "rooks", norm=norm),
        "jays": make_task(tiny_backbone, "jays", norm=norm),
        "scaled": make_task(tiny_backbone, "scaled", norm=norm, gates="scale"),
        "full": make_task(tiny_backbone, "full", norm=norm, gates="full"),
    }
    engine = Engine(tiny_backbone, dtype="float32")
    for name, adapter in tasks.items():
        engine.load(name, adapter)
    names = [*tasks] * 2
    images = random_images(len(names))

    answers = engine.predict_mixed(names, images)

    for name, image, answer in zip(names, images, answers, strict=True):
        expected = fold(tiny_backbone, tasks[name])(image[None])[0]
        assert_parity(answer.reshape(expected.shape), expected)


def test_a_head_alone_leaves_the_backbone_whole(tiny_backbone: Backbone) -> None:
    folded = fold(tiny_backbone, make_task(tiny_backbone, "rooks", norm="frozen")).state_dict()
    theirs = tiny_backbone.model.state_dict()
    differing = {name for name, tensor in theirs.items() if not torch.equal(folded[name], tensor)}
    assert differing == {"fc.weight", "fc.bias"}


def test_a_layer_that_cannot_be_gated_is_no_hindrance() -> None:
    backbone = make_backbone("vit_tiny_patch16_224", depth=1, embed_dim=12, num_heads=1)
    attach_gates(backbone, labels=LABELS, gates="none")  # and no warning of ungated layers


def test_a_stage_that_is_not_there_is_refused(tiny_backbone: Backbone) -> None:
    for norm in NORMS:
        with pytest.raises(SiteError, match="has no stage 'layer9'"):
            attach_gates(tiny_backbone, labels=LABELS, gates="none", norm=norm, start="layer9")


def test_a_config_of_no_gates_has_no_sites(tiny_backbone: Backbone, tmp_path: Path) -> None:
    folder = make_task(tiny_backbone, "rooks", norm="frozen", gates="full").save(tmp_path / "rooks")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["gates"]["kind"] = "none"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ConfigError, match="sites; expected none of kind none"):
        Adapter.load(folder)
