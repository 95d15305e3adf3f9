"""How good yes-or-no decisions are, label by label: precision, recall and F1 from counts.

scikit-learn's functions take a table of one column for two classes, yes and no, and answer for
both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """Counts of each label; shares are NaN where there is nothing to divide by.

    Args:
        right: (labels,) int64, how many images have it and were said to.
        said: (labels,) int64, how many were said to have it.
        had: (labels,) int64, how many have it.
    """

    right: NDArray[np.int64]
    said: NDArray[np.int64]
    had: NDArray[np.int64]

    @property
    def precision(self) -> _Shares:
        """(labels,) share of those said to have it that do."""
        return _divide(self.right, self.said)

    @property
    def recall(self) -> _Shares:
        """(labels,) share of those that have it that were said to."""
        return _divide(self.right, self.had)

    @property
    def f1(self) -> _Shares:
        """(labels,) harmonic mean of the two."""
        return _divide(2 * self.right, self.said + self.had)

    def pool(self) -> Decisions:
        """Return the decisions of all labels as those of one: what micro averages are of."""
        return Decisions(
            right=self.right.sum(keepdims=True),
            said=self.said.sum(keepdims=True),
            had=self.had.sum(keepdims=True),
        )

    def average(self, shares: _Shares) -> float:
        """Return the mean over the labels that images have: a macro average.

        Args:
            shares: (labels,), of which those that are NaN count 0.
        """
        seen = np.nan_to_num(shares)[self.had > 0]
        return float(seen.mean()) if len(seen) else 0.0


def count_decisions(targets: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Decisions:
    """Count decisions.

    Args:
        targets: (N, labels), whether an image has a label.
        predicted: (N, labels), whether it was said to.
    """
    return Decisions(right=(targets & predicted).sum(0), said=predicted.sum(0), had=targets.sum(0))


def _divide(part: NDArray[np.int64], whole: NDArray[np.int64]) -> _Shares:
    shares = np.full(len(whole), np.nan)
    np.divide(part, whole, out=shares, where=whole > 0)
    return shares
