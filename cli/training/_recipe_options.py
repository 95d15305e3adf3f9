"""The options of `gatehub train` that say how it trains, and what it leaves."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated

import typer

from gatehub.training import defaults

_option = partial(typer.Option, rich_help_panel="Recipe")


class Keep(str, Enum):
    """Which epoch's values an adapter gets."""

    auto = "auto"
    best = "best"
    last = "last"


class ClassWeights(str, Enum):
    """What an image of a class counts."""

    none = "none"
    balanced = "balanced"


class LogTo(str, Enum):
    """Where a run is written down, beside its adapter."""

    tensorboard = "tensorboard"


EpochsOption = Annotated[
    int | None,
    _option(
        "--epochs",
        min=0,
        help=f"Passes over the training images; as many as make {defaults.STEPS} steps if not "
        "given. 0 for the linear probe alone.",
    ),
]
BatchSizeOption = Annotated[int, _option("--batch-size", min=1, help="Images in a step.")]
GateRateOption = Annotated[
    float | None,
    _option(
        "--gate-rate",
        help="Peak learning rate of gates, or of what the method trains in their place, and of "
        "norm values; found on the images if not given.",
    ),
]
HeadRateOption = Annotated[
    float | None,
    _option(
        "--head-rate", help="Peak learning rate of the head; found on the images if not given."
    ),
]
WarmupOption = Annotated[
    float,
    _option("--warmup", help="Share of the steps in which the rates rise; then they fall."),
]
AveragingOption = Annotated[
    float,
    _option(
        "--averaging",
        help="Share of the steps over which the values that are kept are averaged; 0 for none.",
    ),
]
LabelSmoothingOption = Annotated[
    float,
    _option("--label-smoothing", help="Share of the target spread over all classes."),
]
ClassWeightsOption = Annotated[
    ClassWeights,
    _option(
        "--class-weights",
        help="balanced: every class counts alike, however many images it has, and the best epoch "
        "is the one with the highest mean recall. With --multi-label: images with a label weigh as "
        "much as those without it.",
    ),
]
MultiLabelOption = Annotated[
    bool,
    typer.Option(
        "--multi-label",
        help="An image may have any number of the labels, or none. SRC is a table then: several in "
        "a cell (cat|dog, separated by |, ;, a comma or blanks), a line for each label of an "
        "image, or columns of 0 and 1 (all that are, or --columns 'label=cat|dog'); or "
        "hf:NAME, with a list of labels in each row.",
    ),
]
KeepOption = Annotated[
    Keep,
    _option(
        "--keep",
        help="auto: the epoch with the least calibrated loss on the validation images, of those "
        "right about three more than the start, else the start. best: the highest accuracy there. "
        "last: the last. With --multi-label, auto and best: the highest mean average precision.",
    ),
]
PatienceOption = Annotated[
    int | None,
    _option("--patience", min=1, metavar="N", help="Stop after N epochs without a better one."),
]
ValImagesOption = Annotated[
    int,
    _option(
        "--val-images", min=1, help="Look at so many validation images after each epoch, at most."
    ),
]
InputSizeOption = Annotated[
    int | None,
    _option(
        "--input-size",
        min=1,
        metavar="PIXELS",
        help="Height and width of the images; the backbone's own if not given. Smaller is faster.",
    ),
]
MinCropOption = Annotated[
    float | None,
    _option(
        "--min-crop",
        help="Smallest share of an image's area that a random crop keeps, 1 for none; if not "
        "given, as small as leaves the images readable.",
    ),
]
HflipOption = Annotated[
    float, _option("--hflip", help="Probability of mirroring an image; 0.5 suits photos.")
]
AutoAugmentOption = Annotated[
    str,
    _option(
        "--auto-augment", help="timm's augmentation policy, such as rand-m6-n2; none if empty."
    ),
]
ColorJitterOption = Annotated[
    float,
    _option("--color-jitter", help="Strength of random brightness, contrast and saturation."),
]
LogToOption = Annotated[
    LogTo | None,
    typer.Option(
        "--log-to",
        help="tensorboard: losses, validation accuracy and rates, into DIR.tensorboard.",
    ),
]
LrFindOption = Annotated[
    bool,
    typer.Option(
        "--lr-find",
        help="Train nothing; try learning rates of the gates from small to large for a few dozen "
        "steps, and draw the loss into DIR.lr-find.png (DIR itself if it ends in .png).",
    ),
]
SeedOption = Annotated[
    int, _option("--seed", min=0, help="The same seed gives the same adapter, bit for bit.")
]
ValFractionOption = Annotated[
    float,
    _option("--val-fraction", help="Fraction held out for validation where SRC has no split."),
]
TrainImagesOption = Annotated[
    int | None, _option("--train-images", min=1, help="Train on only this many images.")
]
DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Gates are stored as float16, bfloat16, float32, int8, int4 or sign, the head, too, "
        "with +float16 (int8+float16); see gatehub compress.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an interrupted run, if there is one; --epochs may be more than before.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace the adapter of another task in DIR.")
]
