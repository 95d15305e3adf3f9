"""How differently two layers arrange the samples of a batch.

A distance works in two steps. A layer's features are summarised as they are computed, as numbers
for pairs of samples, and two summaries are compared. So no more than B x B numbers of a layer are
held, however many features it has.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

from gatehub.errors import GuidanceError

# Values that differ by less than this share of the largest are equal, but for rounding.
_ROUNDING = 4.0


class Distance(Protocol):
    """How far apart two layers are: 0 for the same up to what the distance ignores.

    Attributes:
        fewest: how many samples a batch must have.
    """

    @property
    def fewest(self) -> int: ...

    def summarise(self, features: Tensor) -> Tensor:
        """Reduce a layer's features (B, …) to what is compared, differentiably."""

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance of two summaries of the same samples, a scalar."""


class CKA:
    """One minus linear centred kernel alignment; arXiv 1905.00414.

    With K and L the Gram matrices of two layers' features, flattened and centred over the batch:

        CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

    It ignores rotations, isotropic scaling and translation. A layer that answers all samples alike
    has CKA 0 with every other, and no gradient. Summaries are centred Gram matrices of norm 1,
    (B, B) float32, or float64 for such features.

    Args:
        unbiased: estimate HSIC without bias (Song et al., JMLR 13, 2012). The biased estimate,
            which was published for guidance, comes close to 1 for any two layers of more features
            than the batch has samples; this one is about 0 for layers with nothing in common.
    """

    def __init__(self, *, unbiased: bool = False) -> None:
        self.unbiased = unbiased

    @property
    def fewest(self) -> int:
        """Of two samples every layer has the same arrangement."""
        return 4 if self.unbiased else 3

    def summarise(self, features: Tensor) -> Tensor:
        """Return the centred Gram matrix, of Frobenius norm 1, or 0 for equal samples."""
        samples = check_samples(features, self)
        with _full_precision(features):
            rows = _centre(_flatten(features))
            gram = rows @ rows.T / rows.shape[1]
            if self.unbiased:
                # The inner product of matrices centred so is the estimator times B (B - 3).
                gram = gram * (1 - torch.eye(samples, dtype=gram.dtype, device=gram.device))
                means = gram.sum(0) / (samples - 2)
                gram = gram - means[:, None] - means[None, :] + means.sum() / (samples - 1)
                gram = gram * (1 - torch.eye(samples, dtype=gram.dtype, device=gram.device))
            return _normalise(gram)

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return 1 - CKA: from 0 to 1, and up to 2 for the unbiased estimate."""
        return 1 - _multiply(first, second)


class RSA:
    """One minus the similarity of representational dissimilarities (Kriegeskorte et al., 2008).

    Two samples are as dissimilar as one minus Pearson's correlation of their features; two layers
    are as similar as Pearson's correlation of these dissimilarities. (Spearman's, which is common,
    has no gradient.) Summaries have a number for each pair of samples, B (B - 1) / 2.
    """

    @property
    def fewest(self) -> int:
        """Two samples have one dissimilarity, which correlates with nothing."""
        return 3

    def summarise(self, features: Tensor) -> Tensor:
        """Return the dissimilarities, centred and of norm 1, or 0 where all are equal."""
        samples = check_samples(features, self)
        with _full_precision(features):
            # Each sample is centred over its features here.
            rows = _centre(_flatten(features).T).T
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            rows = rows / torch.where(norms > 0, norms, torch.ones_like(norms))
            upper = torch.triu_indices(samples, samples, 1, device=rows.device)
            correlations = (rows @ rows.T)[upper[0], upper[1]]
            return _normalise(_centre(-correlations[:, None])[:, 0])

    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return one minus the correlation, from 0 to 2."""
        return 1 - _multiply(first, second)


def check_samples(features: Tensor, distance: Distance) -> int:
    """Return how many samples there are, and refuse features that tell a distance nothing.

    Raises:
        GuidanceError: they have no dimension of samples, or too few of them.
    """
    samples = len(features) if features.ndim else 0
    if samples < distance.fewest or not features.numel():
        raise GuidanceError(
            f"The features of a layer have the shape {tuple(features.shape)}; expected "
            f"{distance.fewest} samples or more along the first dimension.",
            hint="Use larger batches (batch_size); without the other samples of a batch there is "
            "nothing to be compared.",
        )
    return samples


def _flatten(features: Tensor) -> Tensor:
    """Return (B, F) in float32, or in float64 where features are."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return features.reshape(len(features), -1).to(dtype)


def _centre(rows: Tensor) -> Tensor:
    """Subtract each column's mean, and scale by a constant that keeps squares within range.

    Columns that differ by rounding alone are noise where all are so: the result is 0 then.
    """
    with torch.no_grad():
        first = rows[:1].clone()
        large = rows.abs().amax(0)
    # Without the first row, equal values are 0 exactly, and large offsets take no digits away.
    shifted = rows - first
    centred = shifted - shifted.mean(0)
    with torch.no_grad():
        spread = centred.abs().amax(0)
        varies = (spread > _ROUNDING * torch.finfo(rows.dtype).eps * large).any()
        scale = spread.amax()
        # A product, and no choice: what is not finite must not vanish.
        factor = varies / torch.where(scale > 0, scale, torch.ones_like(scale))
    return centred * factor


def _normalise(summary: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(summary)
    return summary / torch.where(norm > 0, norm, torch.ones_like(norm))


def _multiply(first: Tensor, second: Tensor) -> Tensor:
    if first.shape != second.shape:
        raise GuidanceError(
            f"Two layers have summaries of the shapes {tuple(first.shape)} and "
            f"{tuple(second.shape)}; expected the same samples in both.",
            hint="Give both networks the same batch, with the samples along the first dimension.",
        )
    return (first * second.to(first)).sum()


def _full_precision(features: Tensor) -> AbstractContextManager[object]:
    """Leave autocast, under which products of matrices are rounded to half precision."""
    kind = features.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return nullcontext()
