"""The command and its sub-commands."""

from __future__ import annotations

from typing import Annotated

import typer

import gatehub
from gatehub.cli import adapters, demo, export, hub, upkeep
from gatehub.cli.answers import evaluate, predict
from gatehub.cli.arithmetic import compress, merge
from gatehub.cli.serving import serve
from gatehub.cli.training import distill, train

app = typer.Typer(
    name="gatehub",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

_GROUPS = (
    *(train, evaluate, predict, adapters, compress, merge, distill),
    *(hub, upkeep, serve, export, demo),
)
for _group in _GROUPS:
    _group.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gatehub {gatehub.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Many image-classification tasks on one frozen convolutional backbone.

    Start with `gatehub demo`. Results go to stdout, everything else to stderr.
    """
