"""How far two arrays of answers are apart."""

from __future__ import annotations

import math

import pytest

from gatehub.errors import ParityError
from gatehub.export.parity import Difference, compare


def test_the_largest_difference_counts_against_the_largest_expected_value() -> None:
    difference = compare([[1.0, -8.0], [0.0, 2.0]], [[1.5, -8.0], [-1.0, 2.0]])

    assert difference == Difference(max_abs=1.0, max_rel=0.125)


def test_equal_answers_do_not_differ_even_where_all_are_zero() -> None:
    assert compare([0.0, 0.0], [0.0, 0.0]) == Difference(max_abs=0.0, max_rel=0.0)
    assert compare([], []) == Difference(max_abs=0.0, max_rel=0.0)


def test_any_difference_from_zero_is_infinite() -> None:
    assert compare([0.0], [1e-9]) == Difference(max_abs=1e-9, max_rel=math.inf)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_answers_that_are_not_finite_are_infinitely_far(value: float) -> None:
    apart = Difference(max_abs=math.inf, max_rel=math.inf)

    assert compare([1.0, value], [1.0, value]) == apart
    assert compare([1.0, 2.0], [1.0, value]) == apart


def test_other_shapes_are_refused_although_they_would_broadcast() -> None:
    with pytest.raises(ParityError, match=r"have shape \(1, 2\); expected \(3, 2\)") as caught:
        compare([[1.0, 2.0]] * 3, [[1.0, 2.0]])
    assert caught.value.max_abs_diff == math.inf
