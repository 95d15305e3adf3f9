"""The report: similarities layer by layer, and whether two networks err alike."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import cohen_kappa_score

from gatehub.errors import GuidanceError
from gatehub.training.guidance import CKA, error_consistency, measure_alignment
from gatehub.training.guidance.picture import draw_alignment
from gatehub.training.guidance.report import Alignment, judge_classes
from tests.training.guidance.networks import (
    draw_images,
    hooks_left,
    make_connected,
    make_convolutional,
)

Batches = list[tuple[torch.Tensor, torch.Tensor]]


def make_batches() -> Batches:
    classes = torch.arange(12) % 5
    return [(draw_images(seed=seed), classes) for seed in (3, 4)]


def test_every_layer_is_compared_with_every_other() -> None:
    target, guide, batches = make_connected(5), make_convolutional(), make_batches()
    found = measure_alignment(target, guide, batches, judge=judge_classes)

    assert (found.target_layers, found.guide_layers) == (("1", "3", "5", "7"), ("0", "2", "5"))
    cka = CKA()
    guide.eval()
    expected = np.zeros((4, 3))
    with torch.no_grad():
        for images, _ in batches:
            for i, ours in enumerate((2, 4, 6, 8)):
                for j, theirs in enumerate((1, 3, 6)):
                    a, b = target[:ours](images), guide[:theirs](images)
                    far = cka.compare(cka.summarise(a), cka.summarise(b))
                    expected[i, j] += (1 - float(far)) / 2
    assert found.similarities == pytest.approx(expected, abs=1e-5)
    assert [pair[:2] for pair in found.pairs] == [("1", "0"), ("5", "2"), ("7", "5")]
    assert found.mean == pytest.approx(expected[[0, 2, 3], [0, 1, 2]].mean(), abs=1e-5)
    assert found.samples == 24
    right = [
        torch.cat([judge_classes(network(x).detach(), y) for x, y in batches]).numpy()
        for network in (target, guide)
    ]
    assert found.target_accuracy == right[0].mean()
    assert found.guide_accuracy == right[1].mean()
    assert found.consistency == error_consistency(*right)


def test_a_network_is_like_itself_and_errs_like_itself() -> None:
    network = make_convolutional()
    network.train()
    found = measure_alignment(network, network, make_batches(), judge=judge_classes)

    assert np.diag(found.similarities) == pytest.approx(1, abs=1e-5)
    assert found.consistency == pytest.approx(1)
    assert network.training
    assert hooks_left(network) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_error_consistency_is_cohens_kappa(answers: Sequence[tuple[bool, bool]]) -> None:
    first, second = np.array(answers, dtype=bool).T
    found = error_consistency(first, second)

    if (first.all() and second.all()) or not (first.any() or second.any()):
        assert found is None
    else:
        assert found == pytest.approx(cohen_kappa_score(first, second))


def test_a_report_is_data_a_table_and_a_picture() -> None:
    found = measure_alignment(
        make_connected(5), make_convolutional(), make_batches(), judge=judge_classes
    )
    told = json.loads(json.dumps(found.to_json()))
    assert told["similarities"] == found.similarities.tolist()
    assert told["error_consistency"] == found.consistency
    table = found.to_table().splitlines()
    assert table[2] == f"| 1 | 0 | {found.similarities[0, 0]:.3f} |"
    assert table[6] == f"Mean similarity of 3 pairs: {found.mean:.3f}."
    assert "Error consistency (Cohen's kappa)" in table[7]
    picture = draw_alignment(found, title="two networks")
    assert Image.open(io.BytesIO(picture)).size == (1120, 960)
    assert picture == draw_alignment(found, title="two networks")


def test_without_a_judge_nobody_is_right() -> None:
    found = measure_alignment(make_connected(), make_convolutional(), make_batches())
    assert found.target_accuracy is found.guide_accuracy is found.consistency is None
    assert "Right of" not in found.to_table()
    same = Alignment(
        target_layers=("a",),
        guide_layers=("b",),
        similarities=np.ones((1, 1)),
        samples=3,
        target_accuracy=1.0,
        guide_accuracy=1.0,
    )
    assert "(Cohen's kappa): not defined." in same.to_table()


def test_what_cannot_be_reported_is_refused() -> None:
    target, guide = make_connected(), make_convolutional()
    with pytest.raises(GuidanceError, match="There are no batches"):
        measure_alignment(target, guide, [])
    with pytest.raises(GuidanceError, match="expected 3 samples or more"):
        measure_alignment(target, guide, [(draw_images(2), None)])
    assert hooks_left(target, guide) == 0
    with pytest.raises(GuidanceError, match="is of the same samples"):
        error_consistency(np.ones(3, bool), np.ones(4, bool))

    class Fickle(torch.nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self[1](self[0](x.flatten(1)))
            return self[2](x if len(x) == 12 else self[1](x))  # type: ignore[no-any-return]

    layers = [torch.nn.Linear(192, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)]
    batches = [(draw_images(12), None), (draw_images(6), None)]
    with pytest.raises(GuidanceError, match="call other layers in one batch than in another"):
        measure_alignment(Fickle(*layers), guide, batches)
