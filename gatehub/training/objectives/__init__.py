"""What a task is trained for: one label for each image, or any number of them.

All that differs between the two is here: the loss, the weights of rare labels, what is measured and
by what epochs are compared.
"""

from gatehub.training.objectives.multi_label import MULTI_LABEL, MultiLabelEvaluation
from gatehub.training.objectives.objective import Measured, Objective
from gatehub.training.objectives.single_label import SINGLE_LABEL, Evaluation

__all__ = [
    "MULTI_LABEL",
    "SINGLE_LABEL",
    "Evaluation",
    "Measured",
    "MultiLabelEvaluation",
    "Objective",
]
