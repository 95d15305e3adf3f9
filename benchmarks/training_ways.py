"""The ways to train that are compared: gatehub's own epochs, and a plain loop over a timm model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import nn

from gatehub.backbone import Backbone, load_backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import training_batches
from gatehub.training.data import ImageData
from gatehub.training.economy.held import hold_images
from gatehub.training.economy.precision import MixedPrecision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe
from gatehub.training.start import Choices
from gatehub.training.start.crops import LARGE
from gatehub.training.steps import train_epoch
from gatehub.training.steps.optimiser import make_optimiser

_CPU = torch.device("cpu")
STEPS = 2  # in an epoch that is timed
FINE_TUNING_RATE = 1e-3
NO_AUGMENTATION: dict[str, Any] = {
    "min_crop": 1.0,
    "hflip": 0.0,
    "auto_augment": "",
    "color_jitter": 0.0,
}
_CLASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to train.

    Args:
        gates: kind of the gates; None for fine-tuning all of a timm model.
        start: first gated stage, or None.
        precision: of the steps.
        recompute: whether blocks are computed twice.
        augment: whether images are drawn anew in each epoch; if not, what comes before late gates
            is computed once.
        channels_last: of fine-tuning; gated networks follow the rule of `arrange_kernels`.
    """

    gates: str | None = None
    start: str | None = None
    precision: str = "float32"
    recompute: bool = False
    augment: bool = True
    channels_last: bool = False


TIMM, TIMM_FAST = "timm, fine-tuning", "timm, fine-tuning, channels-last"
DEFAULT = "gates, the default (auto)"
HELD = "gates, from blocks.5 on, stem computed once"
WAYS = {
    TIMM: Way(),
    TIMM_FAST: Way(channels_last=True),
    DEFAULT: Way(gates="auto"),
    "gates, full": Way(gates="full"),
    "gates, from blocks.5 on": Way(gates="auto", start="blocks.5"),
    HELD: Way(gates="auto", start="blocks.5", augment=False),
    "gates, bfloat16": Way(gates="auto", precision="bfloat16"),
    "gates, blocks computed twice": Way(gates="auto", recompute=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every way is tried on: backbone, weights, image size, batch size."""

    backbone: str
    weights: Path | None
    side: int
    batch_size: int

    def load(self) -> tuple[Backbone, Preprocessing]:
        """Read the backbone, and its preprocessing for the images' size."""
        backbone = load_backbone(
            self.backbone, weights=self.weights, pretrained=self.weights is not None
        )
        return backbone, backbone.preprocessing.with_input_size(self.side)


def make_epoch(way: Way, setting: Setting, data: ImageData) -> Callable[[], object]:
    """Return a function that trains for one epoch."""
    backbone, preprocessing = setting.load()
    recipe = Recipe(
        epochs=1,
        batch_size=setting.batch_size,
        precision=way.precision,
        **({} if way.augment else NO_AUGMENTATION),
    )
    if way.gates is None:
        model = make_timm(setting, backbone, data, channels_last=way.channels_last)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
        return partial(fine_tune_epoch, model, optimiser, data, recipe, preprocessing, epoch=1)
    gated = attach_gates(backbone, labels=data.labels, gates=way.gates, start=way.start)
    gated.preprocessing = preprocessing
    arrange_kernels(gated)
    if way.recompute:
        recompute_blocks(gated.net)
    held = hold_images(gated, data.train, recipe, limit_bytes=10**9)
    choices = Choices(
        epochs=1, gate_rate=1e-5, norm_rate=1e-5, head_rate=1e-5, min_crop=recipe.min_crop or LARGE
    )
    return partial(
        train_epoch,
        held.model,
        make_optimiser(held.model, recipe, choices),
        replace(data, train=held.train),
        recipe,
        choices,
        {},
        MixedPrecision(way.precision, _CPU),
        epoch=1,
        workers=0,
        on_step=lambda step: None,
    )


def make_timm(
    setting: Setting, backbone: Backbone, data: ImageData, *, channels_last: bool
) -> nn.Module:
    """Return a timm model with the backbone's weights and a new head."""
    model = timm.create_model(setting.backbone, num_classes=len(data.labels))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    theirs = backbone.model.state_dict()
    model.load_state_dict(
        {n: t for n, t in theirs.items() if shapes.get(n) == t.shape}, strict=False
    )
    return model.to(memory_format=torch.channels_last) if channels_last else model


def fine_tune_epoch(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    data: ImageData,
    recipe: Recipe,
    preprocessing: Preprocessing,
    *,
    epoch: int,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
) -> None:
    """Train a timm model for one epoch, as a plain loop does."""
    model.train()
    batches = training_batches(
        data.train,
        recipe.augment(preprocessing, min_crop=LARGE),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        epoch=epoch,
    )
    for images, targets in batches:
        loss = F.cross_entropy(model(images), targets)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        if schedule is not None:
            schedule.step()


def draw_images(setting: Setting) -> ImageData:
    """Return pictures of noise: what they show does not matter for time and memory."""
    count = STEPS * setting.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)
    examples = Examples(
        names=tuple(map(str, range(count))),
        targets=tuple(i % _CLASSES for i in range(count)),
        sources=tuple(pixels),
    )
    return ImageData(
        train=examples,
        val=examples,
        labels=tuple(map(str, range(_CLASSES))),
        source="noise",
        skipped=(),
        split={"seed": 0, "val_fraction": 0.2, "train_images": None},
    )
