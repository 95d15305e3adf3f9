"""gatehub hub verify, gc and delete: looking after a folder hub.

gatehub hub verify /srv/adapters
gatehub hub gc /srv/adapters
gatehub hub delete acme/birds --hub /srv/adapters
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import HubOption
from gatehub.cli._output import Format, FormatOption, Output, format_bytes

PlaceArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="A folder hub's path, or its URL (s3://…).")
]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    group = typer.Typer(no_args_is_help=True, help="Look after a folder hub.")
    group.command(epilog="Example: gatehub hub verify ./hub")(verify)
    group.command(epilog="Example: gatehub hub gc ./hub")(gc)
    group.command(epilog="Example: gatehub hub delete acme/digits --tag v1 --hub ./hub")(delete)
    app.add_typer(group, name="hub")


@reports_errors
def verify(place: PlaceArgument, format: FormatOption = Format.human) -> None:
    """Reread every byte of a hub and check it against its digest; exit with 0 or 1."""
    from gatehub.hub import open_hub
    from gatehub.hub.folder.upkeep import verify_hub

    output = Output(format)
    hub = open_hub(place)
    report = verify_hub(hub)
    read = (
        f"{report.repositories} repositories, {report.commits} commits, {report.blobs} files "
        f"({format_bytes(report.bytes)})"
    )
    output.result(
        {"path": hub.place, "sound": not report.problems, **asdict(report)},
        human=f"{hub.place}: read {read}: "
        + (f"{len(report.problems)} problems." if report.problems else "all sound."),
        quiet="\n".join(report.problems),
    )
    for problem in report.problems:
        output.note(problem)
    if report.problems:
        raise typer.Exit(1)


@reports_errors
def gc(
    place: PlaceArgument,
    older_than_h: Annotated[
        float,
        typer.Option("--older-than-hours", min=0, help="Younger garbage may be a push under way."),
    ] = 24,
    format: FormatOption = Format.human,
) -> None:
    """Remove what no branch or tag leads to, and what killed pushes left."""
    from gatehub.hub import open_hub
    from gatehub.hub.folder.upkeep import collect_garbage

    output = Output(format)
    hub = open_hub(place)
    done = collect_garbage(hub, older_than_s=older_than_h * 3600)
    output.result(
        asdict(done),
        human=f"{hub.place}: removed {done.blobs} files, {done.manifests} commits and "
        f"{done.temporary} temporary files.",
        quiet="",
    )


@reports_errors
def delete(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Name on the hub.")],
    tag: Annotated[str | None, typer.Option("--tag", help="Delete this tag only.")] = None,
    branch: Annotated[str | None, typer.Option("--branch", help="Delete this branch only.")] = None,
    hub: HubOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Delete a repository, a branch or a tag of a folder hub; `gc` frees the space later."""
    from gatehub.hub import open_hub
    from gatehub.hub.folder.upkeep import delete_branch, delete_repository, delete_tag, folder_hub

    if tag and branch:
        raise typer.BadParameter("give --tag or --branch, not both.")
    output = Output(format)
    store = folder_hub(open_hub(hub))
    if tag:
        delete_tag(store, name, tag)
    elif branch:
        delete_branch(store, name, branch)
    else:
        delete_repository(store, name)
    what = f"tag '{tag}' of {name}" if tag else f"branch '{branch}' of {name}" if branch else name
    output.result({"deleted": what}, human=f"Deleted {what} from {store.place}.", quiet="")
