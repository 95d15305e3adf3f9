"""Several tasks as one: M, normalisation values and heads, each by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.adapter.arithmetic import merge_adapters
from gatehub.backbone import Backbone
from gatehub.errors import AdapterError, BackboneMismatchError
from gatehub.gates.fold import fold
from tests.tiny import make_backbone, make_trained, random_images

KINDS = ("auto", "full", "lowrank:2", "scale")


def train(backbone: Backbone, seed: int, **changes: object) -> Adapter:
    model = make_trained(backbone, seed=seed, **changes)  # type: ignore[arg-type]
    return Adapter.from_model(model, task=f"task{seed}")


def matrix(adapter: Adapter, site: str) -> Tensor:
    """M: (O, I), 1 where the task has no gate."""
    gate = adapter.layout.sites.get(site)
    if gate is None:
        return torch.ones(())
    return gate.kind.matrix({part: adapter.tensors[f"{site}.{part}"] for part in gate.parts})


@pytest.mark.parametrize(("first", "second"), [*combinations_with_replacement(KINDS, 2)])
def test_moves_from_1_are_added_exactly_whatever_the_kinds(
    first: str, second: str, tiny_backbone: Backbone
) -> None:
    one, two = train(tiny_backbone, 1, gates=first), train(tiny_backbone, 2, gates=second)
    merged = merge_adapters(tiny_backbone, [one, two], weights=[0.7, -0.2])
    for site, gate in merged.layout.sites.items():
        expected = 1 + 0.7 * (matrix(one, site) - 1) - 0.2 * (matrix(two, site) - 1)
        assert torch.allclose(matrix(merged, site), expected, atol=1e-5), site
        most = gate.shape[0] * gate.shape[1]
        assert gate.kind.count(*gate.shape) <= most


def test_normalisation_values_are_added_from_the_backbones(tiny_backbone: Backbone) -> None:
    one = train(tiny_backbone, 1, norm="affine")
    two = train(tiny_backbone, 2, norm="stats")
    three = train(tiny_backbone, 3, norm="frozen")
    merged = merge_adapters(tiny_backbone, [one, two, three])
    assert merged.layout.norm == "stats"
    origin = tiny_backbone.model.state_dict()
    for part, added in (("weight", [one, two]), ("running_mean", [two])):
        name = f"layer1.0.bn1.{part}"
        expected = origin[name] + sum((each.tensors[name] - origin[name]) / 3 for each in added)
        assert torch.allclose(merged.tensors[name], expected, atol=1e-6)


def test_a_task_that_begins_later_has_not_moved_before(tiny_backbone: Backbone) -> None:
    whole = train(tiny_backbone, 1, start=None, gates="full")
    late = train(tiny_backbone, 2, start="layer4", gates="full")
    merged = merge_adapters(tiny_backbone, [late, whole])
    assert merged.layout.start is None
    assert merged.layout.sites.keys() == whole.layout.sites.keys()
    assert torch.allclose(matrix(merged, "conv1"), (matrix(whole, "conv1") + 1) / 2)


def test_one_adapter_of_weight_1_is_itself(tiny_adapter: Adapter, tiny_backbone: Backbone) -> None:
    merged = merge_adapters(tiny_backbone, [tiny_adapter])
    assert merged.layout == tiny_adapter.layout
    assert merged.digest == tiny_adapter.digest


def test_equal_labels_get_a_mean_head_whatever_their_order(tiny_backbone: Backbone) -> None:
    one = train(tiny_backbone, 1, labels=("a", "b", "c"))
    two = train(tiny_backbone, 2, labels=("c", "a", "b"))
    merged = merge_adapters(tiny_backbone, [one, two], weights=[3, 1])
    assert merged.labels == ("a", "b", "c")
    for name in ("head.weight", "head.bias"):
        expected = 0.75 * one.tensors[name] + 0.25 * two.tensors[name][[1, 2, 0]]
        assert torch.allclose(merged.tensors[name], expected, atol=1e-6)


def test_other_labels_get_rows_of_their_own(tiny_backbone: Backbone) -> None:
    one = train(tiny_backbone, 1, labels=("a", "b"))
    two = train(tiny_backbone, 2, labels=("b", "c", "d"))
    merged = merge_adapters(tiny_backbone, [one, two])
    assert merged.labels == ("a", "b", "c", "d")
    first, second = one.tensors["head.weight"], two.tensors["head.weight"]
    expected = torch.stack([first[0], (first[1] + second[0]) / 2, second[1], second[2]])
    assert torch.allclose(merged.tensors["head.weight"], expected, atol=1e-6)
    assert fold(tiny_backbone, merged)(random_images()).shape == (2, 4)


def test_what_is_taken_away_has_no_say_in_the_head(tiny_backbone: Backbone) -> None:
    one = train(tiny_backbone, 1, labels=("a", "b"))
    two = train(tiny_backbone, 2, labels=("b", "c"))
    merged = merge_adapters(tiny_backbone, [one, two], weights=[1, -0.5])
    assert merged.labels == ("a", "b")
    assert torch.equal(merged.tensors["head.weight"], one.tensors["head.weight"])


def test_thresholds_follow_their_labels(tiny_backbone: Backbone) -> None:
    one = train(tiny_backbone, 1, labels=("a", "b")).with_thresholds([0.2, 0.4])
    two = train(tiny_backbone, 2, labels=("b", "c")).with_thresholds([0.8, 1.0])
    merged = merge_adapters(tiny_backbone, [one, two], weights=[1, 3])
    assert merged.problem.thresholds == pytest.approx((0.2, 0.7, 1.0))


def test_it_says_what_it_was_made_of_and_carries_no_figures(tiny_backbone: Backbone) -> None:
    one, two = train(tiny_backbone, 1).with_metrics({"accuracy": 0.5}), train(tiny_backbone, 2)
    merged = merge_adapters(tiny_backbone, [one, two], weights=[0.25, 1])
    assert merged.task == "task1-task2"
    assert merged.config.metrics == {}
    assert merged.config.training == {
        "merged_from": f"task1 {one.digest[:12]}, task2 {two.digest[:12]}",
        "merge_weights": "0.25, 1",
    }
    assert merge_adapters(tiny_backbone, [one, two], task="both").task == "both"


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ([1.0], "2 adapters are to be merged with 1 weights"),
        ([0.0, 0.0], "The weights are 0, 0; expected finite numbers, one of them positive"),
        ([1.0, float("nan")], "The weights are 1, nan"),
    ],
)
def test_weights_that_fit_no_task_are_refused(
    weights: list[float], match: str, tiny_backbone: Backbone, tiny_adapter: Adapter
) -> None:
    with pytest.raises(AdapterError, match=match):
        merge_adapters(tiny_backbone, [tiny_adapter, tiny_adapter], weights=weights)
    with pytest.raises(AdapterError, match="No adapters were given"):
        merge_adapters(tiny_backbone, [])


def test_another_backbone_or_preparation_is_refused(
    tiny_backbone: Backbone, tiny_adapter: Adapter
) -> None:
    other = train(make_backbone(seed=1), 2)
    with pytest.raises(BackboneMismatchError, match=r"'task2' was trained on .* at hand is"):
        merge_adapters(tiny_backbone, [tiny_adapter, other])
    squeezed = replace(tiny_adapter.preprocessing, crop_pct=0.5)
    config = replace(tiny_adapter.config, preprocessing=squeezed, task="wrens")
    with pytest.raises(AdapterError, match=r"with crop_pct 1\.0, 'wrens' with 0\.5"):
        merge_adapters(tiny_backbone, [tiny_adapter, replace(tiny_adapter, config=config)])
    several = tiny_adapter.with_thresholds([0.5, 0.5, 0.5])
    with pytest.raises(AdapterError, match="any number of labels for 'birds'"):
        merge_adapters(tiny_backbone, [tiny_adapter, several])


def test_heads_with_layers_below_the_labels_are_averaged_or_refused() -> None:
    """ConvNeXt normalises within its classifier, and so does its task."""
    backbone = make_backbone("convnext_atto", dims=(8, 8, 8, 8), depths=(1, 1, 1, 1), num_classes=4)
    one = train(backbone, 1, labels=("a", "b"))
    deeper = {**one.tensors, "head.pre.weight": torch.ones(5)}
    same = replace(one, tensors={**deeper, "head.pre.weight": torch.zeros(5)})
    one = replace(one, tensors=deeper)
    merged = merge_adapters(backbone, [one, same])
    assert torch.equal(merged.tensors["head.pre.weight"], torch.full((5,), 0.5))
    other = replace(same, config=replace(same.config, labels=("a", "c")))
    with pytest.raises(AdapterError, match=r"'head\.pre\.weight', which belongs to no label"):
        merge_adapters(backbone, [one, other])
    with pytest.raises(AdapterError, match="heads have different layers"):
        merge_adapters(backbone, [one, train(backbone, 2, labels=("a", "b"))])
