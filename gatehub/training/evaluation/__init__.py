"""How good a model is on labelled images: which images count, its answers, and figures of them."""

from gatehub.training.evaluation.measuring import evaluate
from gatehub.training.objectives import Evaluation

__all__ = ["Evaluation", "evaluate"]
