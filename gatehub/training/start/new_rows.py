"""Rows for new classes beside those of a head that is there already, which stay as they are.

What a probe's rows say, they say of its classes among themselves: the same vector can be added to
all of them and no answer changes. So rows of two heads cannot stand beside each other. New ones are
fitted with the answers of the old rows, W x + b, as they are:

    logits = [W x + b, c + D x + d]        c: the mean of W x + b over the old classes

D and d have an L2 penalty, on standardised features, and are what is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_STEPS = 500


def fit_new_rows(
    features: NDArray[np.float64],
    answers: NDArray[np.float64],
    targets: NDArray[np.int64],
    *,
    count: int,
    strength: float,
    weights: Sequence[float] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit D, (count, features), and d, (count,).

    Args:
        features: (N, features), standardised.
        answers: (N, known), the logits of the old classes.
        targets: (N,) in [0, known + count).
        count: how many new classes there are.
        strength: of the penalty; 1 / C of scikit-learn.
        weights: what an image of each class counts; None if all count alike.
    """
    given, known, classes = map(torch.from_numpy, (features, answers, targets))
    centre = known.mean(1, keepdim=True)
    counted = None if weights is None else torch.tensor(weights, dtype=torch.float64)[classes]
    rows = torch.zeros(count, given.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([rows], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def measure() -> Tensor:
        optimiser.zero_grad()
        logits = torch.cat([known, centre + given @ rows[:, :-1].T + rows[:, -1]], 1)
        losses = F.cross_entropy(logits, classes, reduction="none")
        penalty = strength / (2 * len(classes)) * rows.square().sum()
        loss = (losses if counted is None else losses * counted).mean() + penalty
        loss.backward()
        return loss

    optimiser.step(measure)
    fitted = rows.detach().numpy()
    return fitted[:, :-1], fitted[:, -1]
