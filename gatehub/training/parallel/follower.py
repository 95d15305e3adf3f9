"""A process that takes steps beside the first one."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch.distributed import TCPStore

from gatehub.backbone import load_backbone
from gatehub.errors import GatehubError, TrainingError, UngatedLayerWarning
from gatehub.gates.attach import attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import seed_everything
from gatehub.training.data import ImageData
from gatehub.training.economy.held import hold_images
from gatehub.training.economy.precision import MixedPrecision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.parallel.group import PATIENCE, joined
from gatehub.training.parallel.plan import read_plan
from gatehub.training.parallel.team import Lost, Team
from gatehub.training.start import Choices
from gatehub.training.steps import train_epoch
from gatehub.training.steps.average import put_tensors
from gatehub.training.steps.optimiser import make_optimiser, restore_state

LOST = 3  # the exit status of a process that only missed the others
READY = b"ready\n"
HOST = "127.0.0.1"
_LOOKS_EVERY_S = 0.5


def follow(team: Team, device: torch.device) -> None:
    """Take part in the training that the first process of a team tells of, until it is done.

    Args:
        team: as this process sees it.
        device: this process's.

    Raises:
        GatehubError: this process cannot do its share.
        Lost: another process is gone.
    """
    plan = read_plan(*team.hear())
    warnings.simplefilter("ignore", UngatedLayerWarning)  # the first process says it
    backbone = load_backbone(plan.backbone, weights=plan.weights).to(device)
    if backbone.digest != plan.digest:
        raise TrainingError(
            f"Process {team.rank + 1} of {team.size} finds other weights of the backbone "
            f"{plan.backbone} than the first one."
        )
    data = ImageData(
        train=plan.train,
        val=plan.train,
        labels=plan.labels,
        source="",
        skipped=(),
        split={"seed": 0, "val_fraction": 0.5, "train_images": None},
    )
    seed_everything(plan.recipe.seed)
    whole = attach_gates(
        backbone,
        labels=plan.labels,
        gates=plan.gates,
        norm=plan.norm,
        start=plan.start,
        shift=plan.shift,
    )
    arrange_kernels(whole)
    whole.preprocessing = plan.preprocessing
    if plan.recipe.gradient_checkpointing:
        recompute_blocks(whole.net)
    held = hold_images(
        whole,
        plan.train,
        plan.recipe,
        limit_bytes=plan.decoded_bytes // team.size,
        workers=plan.workers,
    )
    data, model = replace(data, train=held.train), held.model
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

    They are the number of the first process, the port where all meet, this process's rank, how
    many there are, and the type of their devices.
    """
    parent, port, rank, size = map(int, sys.argv[1:5])
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever libraries print is not for the first process
    os.write(answers, READY)
    cpu = sys.argv[5].startswith("cpu")
    store = TCPStore(HOST, port, is_master=False, timeout=PATIENCE)
    with ExitStack() as held:
        try:
            group = joined(cpu=cpu, local=True, store=store, rank=rank, size=size)
            state = held.enter_context(group)
            team = Team(rank, size, explain=Lost)
            follow(team, torch.device("cpu") if cpu else state.device)
        except GatehubError as error:  # said before the group is left, and the others look why
            sentence = {"message": error.message, "hint": error.hint}
            os.write(answers, f"{json.dumps(sentence)}\n".encode())
            sys.exit(1)
        except Lost:
            sys.exit(LOST)
