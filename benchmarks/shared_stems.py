"""How long a stem tasks can share: starts that are tried, against a group lasso on whole stages.

    python -m benchmarks.shared_stems demo georgian --weight 0.35 --weight 0.45
    python -m benchmarks.shared_stems lite0.safetensors DATA/mnist --start blocks.4 --start blocks.6

The lasso is that of TAPS (arXiv 2203.16708) with stages as groups. A group's gates and
normalisation values are measured from where they begin, in units of their learning rates, and
after each step it is pulled back by WEIGHT * sqrt(its size): a proximal step, as long as WEIGHT of
what a step of Adam can move it. Gates then begin at the first stage that has moved a tenth as far
as the one that moved most, and the training is repeated from the values there. Results are
printed as lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.recipe import Part, split_images
from gatehub.backbone import Backbone, load_backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.checkpoint import EpochRecord
from gatehub.training.data import ImageData, load_data
from gatehub.training.economy.held import hold_images
from gatehub.training.evaluation import evaluate
from gatehub.training.loop import fit
from gatehub.training.observers import Step
from gatehub.training.recipe import Recipe
from gatehub.training.search import list_stages
from gatehub.training.start import Choices

PART = Part(train=300, val=300, test=600)
SIDE = 96
REST = 0.1  # of the stage that moved most: what has moved less counts as at rest

Group = list[tuple[nn.Parameter, Tensor, float]]  # values, where they began, and their rate


@dataclass(frozen=True, kw_only=True)
class Task:
    """Images, the backbone, and how both are used."""

    backbone: Backbone
    data: ImageData
    preprocessing: Preprocessing
    recipe: Recipe
    stages: Sequence[str]


class StageLasso:
    """Pulls each stage back towards the backbone, after every step."""

    def __init__(self, model: GatedModel, stages: Sequence[str], weight: float) -> None:
        self._weight = weight
        self._model = model
        self._began = {name: tensor.clone() for name, tensor in model.task_tensors().items()}
        self._groups: dict[str, Group] = {}
        self._stages = stages
        self.moved: dict[str, float] = {}

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        self._rate = choices.gate_rate
        # With A at 0 a low-rank gate is at rest, whatever B is.
        own = [
            (name, parameter, choices.gate_rate)
            for name, parameter in self._model.gate_parameters().items()
            if not (name.endswith("gate_b") and parameter.ndim == 2)
        ]
        own += [(n, p, choices.norm_rate) for n, p in self._model.norm_parameters().items()]
        order = list(dict(self._model.net.named_modules()))
        begins = [order.index(stage) for stage in self._stages]
        for name, parameter, rate in own:
            place = order.index(name.rpartition(".")[0])
            stage = self._stages[max(sum(first <= place for first in begins) - 1, 0)]
            group = self._groups.setdefault(stage, [])
            group.append((parameter, self._began[name], rate))

    @torch.no_grad()
    def on_step(self, step: Step) -> None:
        share = step.rates["gates"] / self._rate
        for stage, group in self._groups.items():
            distance = sum(float(((p - r) / rate).square().sum()) for p, r, rate in group) ** 0.5
            root = sum(p.numel() for p, _, _ in group) ** 0.5
            kept = max(0.0, 1 - share * self._weight * root / max(distance, 1e-12))
            self.moved[stage] = distance / root
            for parameter, rest, _ in group:
                parameter.copy_(rest + kept * (parameter - rest))

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        pass


def train(
    task: Task,
    start: str | None,
    *,
    weight: float | None = None,
    values: Mapping[str, Tensor] | None = None,
) -> tuple[dict[str, Any], dict[str, Tensor], Mapping[str, float]]:
    """Train once, and return the figures, the values, and how far each stage moved."""
    seed_everything(task.recipe.seed)
    model = attach_gates(task.backbone, labels=task.data.labels, start=start)
    model.preprocessing = task.preprocessing
    arrange_kernels(model)
    with torch.no_grad():
        for name, tensor in model.task_tensors().items() if values else ():
            if not name.startswith("head."):
                tensor.copy_((values or {})[name])
    held = hold_images(model, task.data.train, task.recipe, limit_bytes=10**9)
    lasso = None if weight is None else StageLasso(model, task.stages, weight)
    with tempfile.TemporaryDirectory() as work:
        fitted = fit(
            held.model,
            replace(task.data, train=held.train),
            task.recipe,
            folder=Path(work),
            settings={},
            stem=held.stem,
            observer=lasso,
        )
    sides = {"val": task.data.val, "test": task.data.test}
    transform = task.preprocessing.transform()
    figures = {
        n: evaluate(model, evaluation_batches(s, transform)).accuracy for n, s in sides.items()
    }
    found = {"start": start, "weight": weight, "warm": values is not None, **figures}
    found |= {"epochs": fitted.choices.epochs, "kept": fitted.kept}
    tensors = {name: tensor.clone() for name, tensor in model.task_tensors().items()}
    return found, tensors, {} if lasso is None else lasso.moved


def open_task(weights: str, data: str, *, seed: int, epochs: int | None) -> Task:
    """Load the demo's backbone and one of its tasks, or EfficientNet-Lite0 and a folder."""
    if weights == "demo":
        backbone = load_backbone("demo")
        preprocessing = backbone.preprocessing
        images = load_data("sklearn:digits" if data == "digits" else f"glyphs:{data}", seed=seed)
        half = images.val.sample(len(images.val) // 2, seed=seed)
        others = [n for n, name in enumerate(images.val.names) if name not in {*half.names}]
        images = replace(images, val=half, test=images.val.take(others))
        recipe = Recipe(seed=seed, epochs=epochs)
    else:
        backbone = load_backbone("tf_efficientnet_lite0", weights=Path(weights))
        preprocessing = backbone.preprocessing.with_input_size(SIDE)
        images = split_images(Path(data), PART, preprocessing, seed=seed)
        recipe = Recipe(seed=seed, epochs=epochs, min_crop=1.0)
    size = preprocessing.input_size
    stages = list_stages(backbone.model, exclude=backbone.heads, input_size=size)
    return Task(
        backbone=backbone,
        data=images,
        preprocessing=preprocessing,
        recipe=recipe,
        stages=[stage.name for stage in stages],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="demo, or a file of tf_efficientnet_lite0's weights")
    parser.add_argument("data", help="digits, georgian, symbols, or a folder CLASS/*")
    parser.add_argument("--weight", type=float, action="append", default=[])
    parser.add_argument("--start", action="append", help="all stages if not given")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    task = open_task(asked.weights, asked.data, seed=asked.seed, epochs=asked.epochs)
    for start in [None, *task.stages[1:]] if asked.start is None else asked.start:
        print(json.dumps(train(task, None if start == "none" else start)[0]), flush=True)
    for weight in asked.weight:
        found, values, moved = train(task, None, weight=weight)
        print(json.dumps({**found, "moved": moved}), flush=True)
        alive = [stage for stage in task.stages if moved[stage] > REST * max(moved.values())]
        start = None if alive[0] == task.stages[0] else alive[0]
        print(json.dumps(train(task, start, values=values)[0]), flush=True)


if __name__ == "__main__":
    main()
