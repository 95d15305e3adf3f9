"""A process that takes steps beside the first one."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections import defaultdict
from functools import partial
from pathlib import Path

import torch

from gatehub.backbone import load_backbone
from gatehub.errors import GatehubError, TrainingError, UngatedLayerWarning
from gatehub.gates.attach import attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import seed_everything
from gatehub.training.data import ImageData
from gatehub.training.economy.precision import MixedPrecision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.parallel.plan import read_plan
from gatehub.training.parallel.team import Team, join
from gatehub.training.start import Choices
from gatehub.training.steps import train_epoch
from gatehub.training.steps.average import put_tensors
from gatehub.training.steps.optimiser import make_optimiser, restore_state

LOST = 3  # the exit status of a process that only missed the others
_LOOKS_EVERY_S = 0.5


class _Lost(Exception):
    """Another process is gone."""


def follow(folder: Path, rank: int) -> None:
    """Take part in the training whose plan lies in a folder, until it is done.

    Raises:
        GatehubError: this process cannot do its share.
    """
    plan = read_plan(folder)
    torch.set_num_threads(plan.threads)
    warnings.simplefilter("ignore", UngatedLayerWarning)  # the first process says it
    backbone = load_backbone(plan.backbone, weights=plan.weights).to(plan.devices[rank])
    if backbone.digest != plan.digest:
        raise TrainingError("The weights of the backbone have changed since the run was begun.")
    data = ImageData(
        train=plan.train,
        val=plan.train,
        labels=plan.labels,
        source="",
        skipped=(),
        split={"seed": 0, "val_fraction": 0.5, "train_images": None},
    )
    seed_everything(plan.recipe.seed)
    model = attach_gates(
        backbone, labels=plan.labels, gates=plan.gates, norm=plan.norm, start=plan.start
    )
    arrange_kernels(model)
    model.preprocessing = plan.preprocessing
    if plan.recipe.gradient_checkpointing:
        recompute_blocks(model.net)
    size = len(plan.devices)
    team = Team(rank, size, join=partial(join, folder, rank, size), explain=_Lost)
    (folder / f"ready-{rank}").touch()
    values, tensors = team.hear()
    choices = Choices(**values["choices"])
    optimiser = make_optimiser(model, plan.recipe, choices)
    parts: defaultdict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    put_tensors(model, parts["model"])
    restore_state(optimiser, parts["optimiser"])
    mixed = MixedPrecision(plan.recipe.precision, next(model.parameters()).device)
    mixed.restore_state(parts["mixed"])
    while (epoch := team.hear()[0]["epoch"]) is not None:
        train_epoch(
            model,
            optimiser,
            data,
            plan.recipe,
            choices,
            parts["penalty"],
            mixed,
            epoch=epoch,
            workers=plan.workers,
            on_step=lambda step: None,
            team=team,
        )


def _end_with(parent: int) -> None:
    """End this process when the first one is gone, however it went."""
    while os.getppid() == parent:
        time.sleep(_LOOKS_EVERY_S)
    os._exit(1)


def main() -> None:
    """Follow by this process's arguments, and leave a sentence where that cannot be done.

    They are the folder of the plan, this process's rank, and the number of the first process.
    """
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    threading.Thread(target=_end_with, args=(int(sys.argv[3]),), daemon=True).start()
    try:
        follow(folder, rank)
    except GatehubError as error:
        sentence = {"message": error.message, "hint": error.hint}
        (folder / f"failed-{rank}").write_text(json.dumps(sentence), encoding="utf-8")
        sys.exit(1)
    except _Lost:
        sys.exit(LOST)
