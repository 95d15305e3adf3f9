"""The linear probe: a linear classifier on the frozen backbone, and a head that starts as one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import Tensor, nn

from gatehub.training.methods.learner import Learner
from gatehub.training.start.head_inputs import HeadInputs, find_logit_layers
from gatehub.training.start.new_rows import fit_new_rows
from gatehub.training.start.one_vs_rest import choose_strength, fit_labels

_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of the penalty: scikit-learn's 1 / C
_USUAL_STRENGTH = 30.0  # where a class has too few images to choose
_FOLDS = 3
# The strength is chosen on so many images at most; it hardly depends on more.
_MAX_CHOOSING = 5_000
# So many are in memory at once: 0.4 GB of 2,048 features.
MAX_IMAGES = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """A linear classifier of pooled features.

    Args:
        weight: (classes, features) float64.
        bias: (classes,) float64.
        strength: of the L2 penalty that it was fitted with, on standardised features; 1 / C.
        penalty: (features,) float64: what it costs, in nats an image, to have a weight of 1; so the
            probe is where the mean cross-entropy plus the sum of penalty times weight² is least.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    strength: float
    penalty: NDArray[np.float64]

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the most likely class of each row of (N, features)."""
        scores = features @ self.weight.T + self.bias
        return cast("NDArray[np.int64]", scores.argmax(1))


Probes = dict[str, LinearProbe]  # by the name of the layer in the network


def standardise(
    features: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return features, (N, features), with mean 0 and deviation 1, and both as they were."""
    mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    least = 1e-6 * (spread.max() or 1)  # a feature that is constant here may not be elsewhere
    spread = np.maximum(spread, least)
    return (features - mean) / spread, mean, spread


def fit_probe(
    features: NDArray[np.float32],
    targets: NDArray[np.int64] | NDArray[np.float32],
    *,
    classes: int,
    strength: float | None = None,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> LinearProbe:
    """Fit multinomial logistic regression on standardised features, with an L2 penalty.

    Where an image may have any number of labels it is a logistic regression of each label.

    Args:
        features: (N, features).
        targets: (N,) int64 in [0, classes); or (N, classes) of 0 and 1, and NaN of what is not
            known.
        classes: how many there are; one without an image is never predicted.
        strength: of the penalty, scikit-learn's 1 / C; None for the one with the best
            cross-validated likelihood on these images.
        weights: from `Objective.weigh`; None if all images count alike.
        seed: divides the images into folds.
    """
    standardised, mean, spread = standardise(features)
    if targets.ndim == 2:
        return _fit_labels(
            standardised,
            targets > 0,
            mean,
            spread,
            known=int(np.isfinite(targets).sum()),
            strength=strength,
            weights=weights,
            seed=seed,
        )
    counted = None if weights is None else dict(enumerate(weights))
    if strength is None:
        strength = _choose_strength(
            standardised, targets.astype(np.int64), counted=counted, seed=seed
        )
    with _as_classes():
        fitted = LogisticRegression(C=1 / strength, class_weight=counted, max_iter=2000).fit(
            standardised, targets
        )
    weight, bias, scale = fitted.coef_, fitted.intercept_, strength / (2 * len(targets))
    if len(weight) == 1:  # two classes: scikit-learn keeps the difference of their logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        scale *= 2  # its square is twice the sum of theirs
    weight = weight / spread
    bias = bias - weight @ mean
    probe = LinearProbe(
        weight=np.zeros((classes, features.shape[1])),
        bias=np.full(classes, bias.min() - 10.0),
        strength=strength,
        penalty=scale * spread**2,
    )
    probe.weight[fitted.classes_], probe.bias[fitted.classes_] = weight, bias
    return probe


def _fit_labels(
    standardised: NDArray[np.float64],
    targets: NDArray[np.bool_],
    mean: NDArray[np.float64],
    spread: NDArray[np.float64],
    *,
    known: int,
    strength: float | None,
    weights: Sequence[float] | None,
    seed: int,
) -> LinearProbe:
    if strength is None:
        strength = choose_strength(
            standardised,
            targets,
            strengths=_STRENGTHS,
            usual=_USUAL_STRENGTH,
            weights=weights,
            seed=seed,
        )
    slopes, offsets = fit_labels(standardised, targets, strength=strength, weights=weights)
    weight = slopes / spread
    scale = strength / (2 * known)  # the loss is a mean over all that is known of labels
    return LinearProbe(
        weight=weight, bias=offsets - weight @ mean, strength=strength, penalty=scale * spread**2
    )


def fit_head(
    model: Learner,
    inputs: HeadInputs,
    *,
    strengths: Mapping[str, float] | None = None,
    known: int = 0,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Probes:
    """Fit probes to what the head of a model is given.

    Each layer that gives logits, linear or a 1 x 1 convolution, has a probe of its own input;
    distilled networks have two such layers, and some have none.

    Args:
        model: it stays as it is.
        inputs: of training images.
        strengths: of each layer's penalty; None for the best by cross-validation.
        known: so many of the labels, the first ones, keep their rows of the head; see `new_rows`.
        weights: see `fit_probe`.
        seed: see `fit_probe`.
    """
    layers = find_logit_layers(model)
    probes: Probes = {}
    for name, features in inputs.features.items():
        probe = fit_probe(
            features,
            inputs.targets,
            classes=len(model.labels),
            strength=None if strengths is None else strengths[name],
            weights=weights,
            seed=seed,
        )
        if known:
            probe = _keep_rows(
                probe, layers[name], known, features, inputs.targets, weights=weights
            )
        probes[name] = probe
    return probes


def _keep_rows(
    probe: LinearProbe,
    layer: nn.Linear | nn.Conv2d,
    known: int,
    features: NDArray[np.float32],
    targets: NDArray[np.int64],
    *,
    weights: Sequence[float] | None,
) -> LinearProbe:
    """Return a probe with a layer's own rows for the classes that it knows."""
    weight, bias = (
        np.zeros(known) if values is None else values[:known].detach().cpu().double().numpy()
        for values in (layer.weight.flatten(1), layer.bias)
    )
    if targets.ndim == 2:  # each label has a probe of its own
        weight = np.concatenate([weight, probe.weight[known:]])
        bias = np.concatenate([bias, probe.bias[known:]])
    elif known < len(layer.weight):
        standardised, mean, spread = standardise(features)
        slopes, offsets = fit_new_rows(
            standardised,
            features @ weight.T + bias,
            targets,
            count=len(layer.weight) - known,
            strength=probe.strength,
            weights=weights,
        )
        slopes = slopes / spread
        bias = np.concatenate([bias, bias.mean() + offsets - slopes @ mean])
        weight = np.concatenate([weight, weight.mean(0) + slopes])
    return replace(probe, weight=weight, bias=bias)


def set_head(model: Learner, probes: Probes) -> None:
    """Let the layers that give logits be linear probes."""
    layers = find_logit_layers(model)
    with torch.no_grad():
        for name, probe in probes.items():
            weight, bias = layers[name].weight, layers[name].bias
            weight.copy_(torch.from_numpy(probe.weight).reshape(weight.shape))
            if bias is not None:
                bias.copy_(torch.from_numpy(probe.bias))


def list_penalties(probes: Probes) -> dict[str, Tensor]:
    """Return the penalty of each layer, (features,) float32, by its name in the network."""
    return {name: torch.from_numpy(probe.penalty).float() for name, probe in probes.items()}


def weigh_head(model: Learner, penalties: Mapping[str, Tensor]) -> Tensor | float:
    """Return the penalty of a head's weights, in nats an image; see `list_penalties`."""
    layers = find_logit_layers(model)
    return sum(
        (penalty.to(layers[name].weight.device) @ layers[name].weight.flatten(1).square().sum(0))
        for name, penalty in penalties.items()
    )


def _choose_strength(
    features: NDArray[np.float64],
    targets: NDArray[np.int64],
    *,
    counted: Mapping[int, float] | None,
    seed: int,
) -> float:
    chosen = np.random.default_rng(seed).permutation(len(targets))[:_MAX_CHOOSING]
    features, targets = features[chosen], targets[chosen]
    counts = np.bincount(targets)
    if counts[counts > 0].min() < _FOLDS:
        return _USUAL_STRENGTH
    search = GridSearchCV(
        LogisticRegression(class_weight=counted, max_iter=500),
        {"C": [1 / strength for strength in _STRENGTHS]},
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        scoring="neg_log_loss",
    )
    with _as_classes():
        return float(1 / search.fit(features, targets).best_params_["C"])


@contextmanager
def _as_classes() -> Iterator[None]:
    """Keep scikit-learn from guessing that many classes of few images were numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield
