"""What `gatehub eval --predictions` writes: a row for each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gatehub._disk import replacing
from gatehub.cli.answers._files import open_csv
from gatehub.training.sources.tables.label_sets import join_labels

if TYPE_CHECKING:
    from gatehub.training.objectives import Evaluation, MultiLabelEvaluation


def write_classes(
    file: Path, names: Sequence[str], labels: Sequence[str], measured: Evaluation
) -> None:
    """Write what was said of each image, the score as the probability of what was predicted."""
    rows = zip(names, measured.targets, measured.predicted, measured.scores, strict=True)
    with replacing(file) as stream:
        write = open_csv(stream, ("path", "label", "predicted", "score"))
        for name, target, predicted, score in rows:
            write((name, labels[target], labels[predicted], f"{score:.6g}"))


def write_label_sets(
    file: Path, names: Sequence[str], labels: Sequence[str], measured: MultiLabelEvaluation
) -> None:
    """Write the labels of each image, those that were predicted, and the probability of each.

    Several labels are in one cell as `train --multi-label` reads them; see `join_labels`.
    """
    write_cell = join_labels(labels)

    def join(row: NDArray[np.bool_]) -> str:
        return write_cell(labels[place] for place in np.flatnonzero(row).tolist())

    said = measured.scores >= measured.thresholds  # of labels that are not known, too
    rows = zip(names, measured.targets, said, measured.scores, strict=True)
    with replacing(file) as stream:
        scores = (f"score:{label}" for label in labels)
        write = open_csv(stream, ("path", "labels", "predicted", *scores))
        for name, targets, predicted, own in rows:
            write((name, join(targets), join(predicted), *(f"{score:.6g}" for score in own)))
