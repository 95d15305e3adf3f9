"""Logistic regression of each label on its own, for images that may have any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

_FOLDS = 3
# The strength is chosen on so many images and labels at most; it hardly depends on more.
_MAX_IMAGES, _MAX_LABELS = 2_000, 10


def fit_labels(
    features: NDArray[np.float64],
    targets: NDArray[np.bool_],
    *,
    strength: float,
    weights: Sequence[float] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a classifier of each label against its absence, with an L2 penalty.

    A label that every image has, or none, has slopes of 0 and an offset that says so.

    Args:
        features: (N, features), standardised.
        targets: (N, labels), whether an image has a label.
        strength: of the penalty, the same for all labels; scikit-learn's 1 / C.
        weights: (labels,), what an image with a label counts, against 1 of one without it.

    Returns:
        Slopes (labels, features) and offsets (labels,).
    """
    count = targets.shape[1]
    slopes, offsets = np.zeros((count, features.shape[1])), np.zeros(count)
    for label in range(count):
        own = targets[:, label]
        if own.all() or not own.any():
            offsets[label] = np.log((own.sum() + 0.5) / ((~own).sum() + 0.5))
            continue
        fitted = LogisticRegression(
            C=1 / strength, class_weight=_weigh(weights, label), max_iter=2000
        ).fit(features, own)
        slopes[label], offsets[label] = fitted.coef_[0], fitted.intercept_[0]
    return slopes, offsets


def choose_strength(
    features: NDArray[np.float64],
    targets: NDArray[np.bool_],
    *,
    strengths: Sequence[float],
    usual: float,
    weights: Sequence[float] | None,
    seed: int,
) -> float:
    """Return the strength of the penalty with the best cross-validated likelihood over the labels.

    Args:
        features: see `fit_labels`.
        targets: see `fit_labels`.
        strengths: to choose from.
        usual: what is returned where no label has enough images to choose by.
        weights: see `fit_labels`.
        seed: divides the images into folds.
    """
    chosen = np.random.default_rng(seed).permutation(len(targets))[:_MAX_IMAGES]
    features, targets = features[chosen], targets[chosen]
    rarer = np.minimum(targets.sum(0), (~targets).sum(0))
    # Those that say most: the ones of which both answers are frequent.
    labels = [int(i) for i in np.argsort(-rarer, kind="stable")[:_MAX_LABELS] if rarer[i] >= _FOLDS]
    if not labels:
        return usual
    total = np.zeros(len(strengths))
    for label in labels:
        search = GridSearchCV(
            LogisticRegression(class_weight=_weigh(weights, label), max_iter=500),
            {"C": [1 / strength for strength in strengths]},
            cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
            scoring="neg_log_loss",
            refit=False,
        )
        total += search.fit(features, targets[:, label]).cv_results_["mean_test_score"]
    return strengths[int(total.argmax())]


def _weigh(weights: Sequence[float] | None, label: int) -> dict[bool, float] | None:
    return None if weights is None else {False: 1.0, True: weights[label]}
