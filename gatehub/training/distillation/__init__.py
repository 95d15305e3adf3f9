"""From networks that were fine-tuned from a backbone to adapters of it."""

from gatehub.training.distillation.distill import DistillReport, distill_to_gates
from gatehub.training.distillation.settings import Distillation
from gatehub.training.methods.trained_network import TrainedNetwork, read_network

__all__ = [
    "DistillReport",
    "Distillation",
    "TrainedNetwork",
    "distill_to_gates",
    "read_network",
]
