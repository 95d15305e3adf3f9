"""How good a model is on labelled images: which images count, its answers, and figures of them."""

from gatehub.training.evaluation.measuring import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
