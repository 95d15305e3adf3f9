"""What is answered: the likeliest label, or every label whose score reaches its threshold."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatehub.errors import ConfigError
from gatehub.problem import ONE_LABEL, Problem


def test_one_label_an_image_is_a_softmax() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]])
    assert torch.equal(ONE_LABEL.score(logits), logits.softmax(1))
    assert (ONE_LABEL.type, ONE_LABEL.function, ONE_LABEL.to_json()) == (
        "single-label",
        "softmax",
        {},
    )
    scores = ONE_LABEL.score(logits[0])
    assert ONE_LABEL.choose(logits[0], scores, top_k=None, usual=1) == [1]
    assert ONE_LABEL.choose(logits[0], scores, top_k=2, usual=1) == [1, 2]
    assert ONE_LABEL.choose(logits[0], scores, top_k=9, usual=1) == [1, 2, 0]


def test_equals_stay_in_the_order_of_the_labels() -> None:
    scores = torch.tensor([0.1, 0.4, 0.1, 0.4])
    assert ONE_LABEL.choose(scores, scores, top_k=3, usual=5) == [1, 3, 0]
    many = torch.ones(1000)
    assert ONE_LABEL.choose(many, many, top_k=1000, usual=5) == list(range(1000))


def test_any_number_of_labels_is_a_sigmoid_for_each() -> None:
    problem = Problem(thresholds=(0.5, 0.9, 0.2, 0.0))
    logits = torch.tensor([0.0, 2.0, -1.0, -60.0])
    scores = problem.score(logits)
    assert torch.equal(scores, logits.sigmoid())
    assert problem.type == "multi-label"
    # 0.5 reaches 0.5; 0.88 does not reach 0.9; 0.27 reaches 0.2.
    assert problem.choose(logits, scores, top_k=None, usual=1) == [0, 2, 3]
    assert problem.choose(logits, scores, top_k=2, usual=1) == [1, 0]
    assert problem.choose(logits, logits, top_k=None, usual=1) == [0, 2, 3]
    none = Problem(thresholds=(1.0, 1.0))
    few = torch.tensor([0.0, 1.0])
    assert none.choose(few, none.score(few), top_k=None, usual=5) == []


@given(st.lists(st.tuples(st.floats(-20, 20, width=32), st.floats(0, 1)), min_size=1, max_size=8))
def test_what_is_shown_is_what_reaches_its_threshold(pairs: list[tuple[float, float]]) -> None:
    logits = torch.tensor([logit for logit, _ in pairs])
    problem = Problem(thresholds=tuple(threshold for _, threshold in pairs))
    scores = problem.score(logits)
    chosen = problem.choose(logits, scores, top_k=None, usual=1)
    expected = {i for i, (_, least) in enumerate(pairs) if scores[i].item() >= least}
    assert set(chosen) == expected
    assert [scores[i] for i in chosen] == sorted((scores[i] for i in chosen), reverse=True)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf, "0.5", True, None, 10**400])
def test_a_threshold_is_a_number_from_0_to_1(threshold: object) -> None:
    with pytest.raises(ConfigError, match=r"threshold of label 1 is .*; expected a number from 0"):
        Problem(thresholds=(0.5, threshold))  # type: ignore[arg-type]
