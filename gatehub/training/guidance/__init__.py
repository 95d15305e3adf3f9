"""Guidance by representational alignment, arXiv 2410.20035.

A frozen guide, trained or not, steers a network that is hard to train: beside the task's loss, each
pair of layers adds how far the target's answers to a batch are from lying as the guide's do. The
room takes any pair of networks; only `steering` knows how `gatehub train` uses it.
"""

from gatehub.training.guidance.distances import CKA, RSA, Distance
from gatehub.training.guidance.guidance import Guidance, pair_layers
from gatehub.training.guidance.report import Alignment, error_consistency, measure_alignment

__all__ = [
    "CKA",
    "RSA",
    "Alignment",
    "Distance",
    "Guidance",
    "error_consistency",
    "measure_alignment",
    "pair_layers",
]
