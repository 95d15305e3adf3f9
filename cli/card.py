"""gatehub card: an adapter's model card, previewed and checked before it is pushed.

gatehub card birds
gatehub card birds --license apache-2.0 --dataset acme/bird-photos --write
"""

from __future__ import annotations

from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import FolderArgument
from gatehub.cli._output import Format, FormatOption, Output


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub card digits --license apache-2.0 --write")(card)


@reports_errors
def card(
    folder: FolderArgument,
    license: Annotated[
        str | None, typer.Option("--license", help="In the Hub's spelling, such as apache-2.0.")
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", metavar="ORG/NAME", help="The data on the Hub; repeatable."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the card anew, over what was edited by hand.")
    ] = False,
    format: FormatOption = Format.human,
) -> None:
    """Show an adapter's card (README.md) and check it; exit with 0 or 1."""
    from gatehub.adapter.card_check import check_card, write_card

    if (license or dataset) and not write:
        raise typer.BadParameter("--license and --dataset need --write.")
    output = Output(format)
    if write:
        write_card(folder, license=license, datasets=dataset or [])
    report = check_card(folder)
    output.result(
        {
            "path": str(folder / "README.md"),
            "valid": not report.problems,
            "problems": list(report.problems),
            "advice": list(report.advice),
            "metadata": report.metadata,
        },
        human=report.text,
        quiet="\n".join(report.problems),
    )
    for sentence in (*report.problems, *report.advice):
        output.note(sentence)
    if report.problems:
        output.note("--write writes the card anew, over what was edited by hand.")
        raise typer.Exit(1)
