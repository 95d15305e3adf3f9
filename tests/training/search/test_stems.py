"""`--start auto`: the stages of a backbone, and which start is kept."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import timm
import torch

from gatehub.backbone import Backbone
from gatehub.training.search import LongestStem, Stage, Trial, Tried, list_stages
from gatehub.training.search.stems import count_work
from tests.tiny import SIDE

NAMES = ("conv1", "layer1", "layer2", "layer3")


def search(max_drop: float = 0.01) -> LongestStem:
    stages = [Stage(name=name, shared=0.2 * place) for place, name in enumerate(NAMES)]
    return LongestStem(gates="auto", norm="affine", stages=stages, max_drop=max_drop)


def try_all(
    stem: LongestStem, scores: Mapping[str | None, float], *, probe: float
) -> tuple[list[Trial], Trial]:
    tried: list[Tried] = []
    while (trial := stem.next_trial(tried)) is not None:
        score = probe if trial.is_probe else scores[trial.start]
        tried.append(Tried(trial=trial, accuracy=score, start_accuracy=probe))
    return [one.trial for one in tried], stem.choose(tried).trial


def start_at(name: str | None) -> Trial:
    return Trial(gates="auto", norm="affine", start=name)


def test_the_latest_start_that_costs_little_is_kept() -> None:
    scores = {None: 0.90, "layer1": 0.95, "layer2": 0.892, "layer3": 0.88}
    tried, kept = try_all(search(), scores, probe=0.7)
    assert tried == [start_at(None), start_at("layer3"), start_at("layer2")]
    assert kept == start_at("layer2")
    assert try_all(search(0.02), scores, probe=0.7)[1] == start_at("layer3")


def test_where_every_start_costs_too_much_all_is_gated() -> None:
    scores = {None: 0.90, "layer1": 0.8, "layer2": 0.8, "layer3": 0.8}
    tried, kept = try_all(search(), scores, probe=0.7)
    assert [trial.start for trial in tried] == [None, "layer3", "layer2", "layer1"]
    assert kept == start_at(None)


def test_the_linear_probe_shares_the_whole_backbone() -> None:
    tried, kept = try_all(search(), {None: 0.90}, probe=0.895)
    assert len(tried) == 2
    assert kept.is_probe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
        (
            "tf_efficientnet_lite0",
            ["conv_stem", *(f"blocks.{place}" for place in range(7)), "conv_head"],
        ),
        ("convnext_atto", ["stem", *(f"stages.{place}" for place in range(4))]),
    ],
)
def test_stages_are_children_or_links_of_a_chain(name: str, expected: list[str]) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    heads = ("fc", "classifier", "head")
    stages = list_stages(model, exclude=heads, input_size=(3, 64, 64))
    assert [stage.name for stage in stages] == expected
    shares = [stage.shared for stage in stages]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_work_is_counted_for_each_layer(tiny_backbone: Backbone) -> None:
    work = count_work(tiny_backbone.model, input_size=(3, SIDE, SIDE))
    conv = tiny_backbone.model.get_submodule("conv1")
    assert work["conv1"] == conv.weight.numel() * (SIDE // 2) ** 2  # type: ignore[operator, union-attr]
