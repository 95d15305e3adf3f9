"""gatehub push, pull and list: sharing adapters.

gatehub push birds acme/birds --hub /srv/adapters --tag v1
gatehub pull acme/birds@v1 --hub /srv/adapters --out birds
gatehub list --hub /srv/adapters
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import FolderArgument, HubOption
from gatehub.cli._output import (
    Format,
    FormatOption,
    Output,
    format_bytes,
    format_percent,
    make_table,
)


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub push digits acme/digits --hub ./hub --tag v1")(push)
    app.command(epilog="Example: gatehub pull acme/digits@v1 --hub ./hub --out digits")(pull)
    app.command("list", epilog="Example: gatehub list --hub ./hub")(list_)


@reports_errors
def push(
    folder: FolderArgument,
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Name on the hub.")],
    hub: HubOption = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch to push to.")] = "main",
    tag: Annotated[str | None, typer.Option("--tag", help="Tag the commit, such as v1.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="What the commit says.")] = None,
    format: FormatOption = Format.human,
) -> None:
    """Put an adapter on a hub, as one commit; the same bytes again make none."""
    from gatehub.hub import push

    output = Output(format)
    pushed = push(folder, name, hub=hub, revision=revision, tag=tag, message=message)
    did = "Pushed" if pushed.created else "Nothing new to push:"
    output.result(
        asdict(pushed),
        human=f"{did} {pushed.repo}@{pushed.revision}, commit {pushed.commit[:12]}, {pushed.url}",
        quiet=pushed.commit,
    )


@reports_errors
def pull(
    name: Annotated[
        str, typer.Argument(metavar="ORG/NAME[@REVISION]", help="Branch, tag or commit; main.")
    ],
    hub: HubOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to make. [default: a cache]")
    ] = None,
    format: FormatOption = Format.human,
) -> None:
    """Fetch an adapter from a hub; every byte is checked before the folder appears."""
    from gatehub.hub import pull

    output = Output(format)
    folder = pull(name, hub=hub, out=out)
    output.result(
        {"name": name, "path": str(folder)}, human=f"Pulled {name} to {folder}", quiet=str(folder)
    )


@reports_errors
def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="[ORG/NAME]", help="Show the revisions of this one.")
    ] = None,
    hub: HubOption = None,
    format: FormatOption = Format.human,
) -> None:
    """List a hub's adapters, or the revisions of one."""
    from gatehub.hub import list_adapters, list_revisions

    output = Output(format)
    if name is not None:
        revisions = list_revisions(name, hub=hub)
        rows = [
            (r.commit[:12], ", ".join((*r.branches, *r.tags)), r.created, r.message)
            for r in revisions
        ]
        output.result(
            {"name": name, "revisions": [asdict(r) for r in revisions]},
            human=make_table(("commit", "names", "created", "message"), rows, left=4),
            quiet="\n".join(r.commit for r in revisions),
        )
        return
    found = list_adapters(hub)
    table = make_table(
        ("name", "task", "backbone", "gates", "commit", "classes", "accuracy", "size"),
        [
            (
                a.repo,
                a.task,
                a.backbone,
                a.gates,
                a.commit[:8],
                str(a.classes),
                "" if a.accuracy is None else format_percent(a.accuracy),
                format_bytes(a.bytes),
            )
            for a in found
        ],
        left=5,
    )
    output.result(
        {"adapters": [asdict(a) for a in found]},
        human=table if found else "The hub holds no adapters.",
        quiet="\n".join(a.repo for a in found),
    )
