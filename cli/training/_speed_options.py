"""The options of `gatehub train` that trade memory and time, and hardly touch what is learned."""

from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Annotated

import typer

_option = partial(typer.Option, rich_help_panel="Speed and memory")


class Precision(str, Enum):
    """In which precision the steps compute."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


PrecisionOption = Annotated[
    Precision,
    _option(
        "--precision",
        help="Of the steps; gates are learned, and everything is measured, in float32. Meant for "
        "GPUs: on a CPU, steps of networks with depthwise convolutions take longer.",
    ),
]
GradientCheckpointingOption = Annotated[
    bool,
    _option(
        "--gradient-checkpointing",
        help="Compute each block twice in a step instead of keeping its activations: less memory, "
        "more time.",
    ),
]
DecodedBytesOption = Annotated[
    int,
    _option(
        "--decoded-bytes",
        min=0,
        metavar="N",
        help="Decode as many bytes of training images once, and the others in every epoch. With a "
        "late --start and --min-crop 1, hold what comes before the gates instead, if all fits.",
    ),
]
