"""The options of `gatehub train` that let another network steer it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from gatehub.training.guidance.steering import Guide
    from gatehub.training.recipe import Recipe

_option = partial(typer.Option, rich_help_panel="Guidance")

GuideOption = Annotated[
    str | None,
    _option(
        "--guide",
        metavar="MODEL",
        help="A network, named as for --backbone, that steers the training: layers of the adapter "
        "are drawn to arrange a batch as those of the guide do (1 - CKA, arXiv 2410.20035). It is "
        "frozen, and images are brought to its size and normalisation.",
    ),
]
GuideFileOption = Annotated[
    Path | None,
    _option(
        "--guide-file",
        help="Safetensors file with the guide's weights, as --weights for --backbone.",
    ),
]
GuideUntrainedOption = Annotated[
    bool,
    _option("--guide-untrained", help="Draw the guide's weights from --seed."),
]
GuideWeightOption = Annotated[
    float | None,
    _option("--guide-weight", metavar="W", help="Weight of its term of the loss. \\[default: 1]"),
]
GuideStepsOption = Annotated[
    int | None,
    _option(
        "--guide-steps",
        min=1,
        metavar="N",
        help="Steer the first N steps only; 150 to 300 are a better start. \\[default: all]",
    ),
]


@dataclass(frozen=True, slots=True)
class AskedGuide:
    """What was said of a guide at the command line; each part as its option gives it."""

    model: str | None
    file: Path | None
    untrained: bool = field(kw_only=True)
    weight: float | None = field(kw_only=True)
    steps: int | None = field(kw_only=True)

    def check(
        self, recipe: Recipe, *, method: str, devices: int, lr_find: bool, twice: bool
    ) -> None:
        """Refuse what no guide can do, before anything costs time.

        Raises:
            GuidanceError: options contradict each other.
            BackboneError: there is no such network.
        """
        from gatehub.backbone import check_backbone
        from gatehub.errors import GuidanceError
        from gatehub.training.guidance.guidance import check_weight
        from gatehub.training.guidance.steering import check_run

        if self.model is None:
            for option, given in {
                "--guide-file": self.file is not None,
                "--guide-untrained": self.untrained,
                "--guide-weight": self.weight is not None,
                "--guide-steps": self.steps is not None,
            }.items():
                if given:
                    raise GuidanceError(
                        f"{option} says something of a guide, and none is given.",
                        hint=f"Name one with --guide, or leave out {option}.",
                    )
            return
        if lr_find:
            raise GuidanceError(
                "With --lr-find no adapter is trained, so --guide means nothing.",
                hint="Leave out --guide; or --lr-find, to train.",
            )
        if twice:
            raise GuidanceError(
                "--guide steers one training, and with --then there are two.",
                hint="Train the adapter with --guide, and go on from it with --method finetune "
                "--init-from.",
            )
        if self.untrained and self.file is not None:
            raise GuidanceError(
                "--guide-file names weights, and --guide-untrained draws others.",
                hint="Leave one of them out.",
            )
        if recipe.epochs == 0:
            raise GuidanceError(
                "--guide steers the steps of a training, and there are none (epochs 0).",
                hint="Leave out --guide, or --epochs.",
            )
        if self.untrained and self.model == "demo":
            raise GuidanceError(
                "'demo' brings its own weights, and --guide-untrained asks for others.",
                hint="Leave out --guide-untrained, or name a network of timm's, such as resnet18.",
            )
        check_backbone(self.model, weights=self.file, pretrained=not self.untrained)
        check_weight(1.0 if self.weight is None else self.weight)
        check_run(recipe, images=recipe.batch_size, processes=devices, method=method)

    def load(self, *, seed: int, device: torch.device) -> Guide | None:
        """Load the guide, if there is one."""
        from gatehub.backbone import load_backbone
        from gatehub.training.guidance.steering import Guide

        if self.model is None:
            return None
        network = load_backbone(
            self.model, weights=self.file, pretrained=not self.untrained, seed=seed
        )
        weight = 1.0 if self.weight is None else self.weight
        return Guide(network=network.to(device), weight=weight, steps=self.steps)
