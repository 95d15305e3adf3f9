"""What the gates are measured against: the backbone as it is, under a linear classifier."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gatehub.backbone import Backbone
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import Examples, ImageData

_PENALTIES = (0.001, 0.01, 0.1, 1.0)
_FOLDS = 3


def linear_probe(backbone: Backbone, data: ImageData, *, seed: int = 0) -> float:
    """Fit a linear classifier on the frozen backbone's pooled features.

    Logistic regression on standardised features; its penalty is chosen by cross-validation on
    the training images, so the validation images are seen once.

    Returns:
        Accuracy on the validation images, a fraction.
    """
    features, targets = _pooled_features(backbone, data.train)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    smallest = int(np.bincount(targets).min())
    if smallest >= _FOLDS:
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        grid = {"logisticregression__C": list(_PENALTIES)}
        classifier = GridSearchCV(classifier, grid, cv=folds)
    classifier.fit(features, targets)
    return float(classifier.score(*_pooled_features(backbone, data.val)))


def _pooled_features(
    backbone: Backbone, examples: Examples
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, features) float32 before the classifier, and (N,) classes."""
    model = backbone.model
    device = next(model.parameters()).device
    features, targets = [], []
    with torch.inference_mode():
        for images, classes in evaluation_batches(examples, backbone.preprocessing.transform()):
            maps = model.forward_features(images.to(device))  # type: ignore[operator]
            pooled = model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
            features.append(pooled.float().cpu().numpy())
            targets.append(classes.numpy())
    return np.concatenate(features), np.concatenate(targets)
