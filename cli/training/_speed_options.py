"""The options of `gatehub train` that trade memory and time, and hardly touch what is learned."""

from __future__ import annotations

from typing import Annotated

import typer

DecodedBytesOption = Annotated[
    int,
    typer.Option(
        "--decoded-bytes",
        min=0,
        metavar="N",
        help="Decode as many bytes of training images once, and the others in every epoch.",
    ),
]
