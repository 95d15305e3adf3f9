"""gatehub push, pull, search and list: sharing adapters.

gatehub push birds acme/birds --tag v1
gatehub search --backbone resnet18.a1_in1k
gatehub pull acme/birds@v1 --out birds
gatehub list --hub /srv/adapters
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gatehub.cli._errors import reports_errors
from gatehub.cli._options import BACKBONE_HELP, FolderArgument, HubOption
from gatehub.cli._output import (
    Format,
    FormatOption,
    Output,
    format_bytes,
    format_percent,
    make_table,
)

if TYPE_CHECKING:
    from gatehub.hub import ListedAdapter, Query


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub push digits acme/digits --tag v1")(push)
    app.command(epilog="Example: gatehub pull acme/digits@v1 --out digits")(pull)
    app.command(epilog="Example: gatehub search --backbone resnet18.a1_in1k --task birds")(search)
    app.command("list", epilog="Example: gatehub list --hub ./hub")(list_)


@reports_errors
def push(
    folder: FolderArgument,
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Name on the hub.")],
    hub: HubOption = None,
    revision: Annotated[str, typer.Option("--revision", help="Branch to push to.")] = "main",
    tag: Annotated[str | None, typer.Option("--tag", help="Tag the commit, such as v1.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
    message: Annotated[str | None, typer.Option("--message", help="Commit message.")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="If somebody else pushes meanwhile, put this commit on top of theirs."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would happen, and change nothing.")
    ] = False,
    format: FormatOption = Format.human,
) -> None:
    """Put an adapter on a hub, as one commit; bytes that are there already make none."""
    from gatehub.hub import push

    output = Output(format)
    output.govern_client_bars()
    if dry_run:
        _show_plan(output, folder, name, hub=hub, revision=revision, tag=tag)
        return
    pushed = push(
        folder,
        name,
        hub=hub,
        revision=revision,
        tag=tag,
        message=message,
        private=private,
        force=force,
        report=output.note,
    )
    did = "Pushed" if pushed.created else "Nothing new to push:"
    output.result(
        asdict(pushed),
        human=f"{did} {pushed.repo}@{pushed.revision}, commit {pushed.commit[:12]}, {pushed.url}",
        quiet=pushed.commit,
    )


def _show_plan(
    output: Output, folder: Path, name: str, *, hub: str | None, revision: str, tag: str | None
) -> None:
    from gatehub.hub import plan_push

    plan = plan_push(folder, name, hub=hub, revision=revision, tag=tag, report=output.note)
    onto = f"commit {plan.parent[:12]}" if plan.parent else "nothing yet"
    rows = [
        ("to", f"{plan.repo}@{plan.revision} on {plan.place}"),
        ("on top of", onto),
        ("tag", plan.tag or ""),
        ("add", ", ".join(plan.added)),
        ("change", ", ".join(plan.changed)),
        ("remove", ", ".join(plan.removed)),
        ("leave", ", ".join(plan.unchanged)),
        ("send", format_bytes(plan.bytes)),
    ]
    table = make_table(("", ""), [row for row in rows if row[1]], left=2)
    output.result(asdict(plan), human=table, quiet=plan.parent or "")


@reports_errors
def pull(
    name: Annotated[
        str | None,
        typer.Argument(metavar="ORG/NAME[@REVISION]", help="Branch, tag or commit."),
    ] = None,
    hub: HubOption = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to make. \\[default: a cache]"),
    ] = None,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            help="Pull what FILE pins, and pin what it does not yet; without a name, pull all that "
            "it pins.",
        ),
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Renew the pin.")] = False,
    format: FormatOption = Format.human,
) -> None:
    """Fetch an adapter from a hub; every byte is checked before the folder appears."""
    from gatehub.hub import pull_adapter
    from gatehub.hub.lock import read_lock

    output = Output(format)
    output.govern_client_bars()
    if name is None and (lock is None or out is not None):
        raise typer.BadParameter("give ORG/NAME, or --lock FILE without --out.")
    names = [name] if name is not None else sorted(read_lock(lock) if lock else ())
    done = [
        pull_adapter(n, hub=hub, out=out, lock=lock, update=update, report=output.note)
        for n in names
    ]
    rows: list[dict[str, Any]] = [
        {
            "name": pulled.name,
            "path": str(pulled.folder),
            "repo": pulled.repo,
            "commit": pulled.commit,
            "hub": pulled.hub,
            "stale": pulled.stale,
        }
        for pulled in done
    ]
    output.result(
        rows[0] if name is not None else {"adapters": rows},
        human="\n".join(f"Pulled {p.name} (commit {p.commit[:12]}) to {p.folder}" for p in done)
        or f"'{lock}' pins nothing.",
        quiet="\n".join(str(p.folder) for p in done),
    )


WantedBackbone = Annotated[
    str | None, typer.Option("--backbone", help=f"{BACKBONE_HELP} Or ORG/NAME of the Hub.")
]
WantedTask = Annotated[
    str | None, typer.Option("--task", metavar="WORD", help="A part of the task's name.")
]
WantedAuthor = Annotated[str | None, typer.Option("--author", help="The ORG of ORG/NAME.")]


@reports_errors
def search(
    backbone: WantedBackbone = None,
    task: WantedTask = None,
    author: WantedAuthor = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Look at no more than this many adapters.")
    ] = 1_000,
    hub: HubOption = None,
    format: FormatOption = Format.human,
) -> None:
    """Find adapters on a hub, by their cards."""
    from gatehub.hub import search

    output = Output(format)
    found = search(
        backbone=backbone, task=task, author=author, limit=limit, hub=hub, report=output.note
    )
    _show_adapters(output, found, none="The hub holds no such adapter.")


@reports_errors
def list_(
    name: Annotated[
        str | None,
        typer.Argument(metavar="ORG/NAME", help="Show the revisions of this repository."),
    ] = None,
    backbone: WantedBackbone = None,
    task: WantedTask = None,
    author: WantedAuthor = None,
    hub: HubOption = None,
    cached: Annotated[
        bool, typer.Option("--cached", help="List the cache; the default where no hub is named.")
    ] = False,
    format: FormatOption = Format.human,
) -> None:
    """List the adapters of a hub or of the cache, or the revisions of one."""
    import os

    from gatehub.hub import Query, list_revisions, search

    output = Output(format)
    query = Query(backbone=backbone, task=task, author=author)
    such = "adapters" if query == Query() else "such adapter"
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
    elif cached or not (hub or os.environ.get("GATEHUB_HUB")):
        none = f"The cache holds no {such}. `gatehub search` looks on the hub."
        _show_cache(output, query, none=none)
    else:
        found = search(backbone=backbone, task=task, author=author, hub=hub, report=output.note)
        _show_adapters(output, found, none=f"The hub holds no {such}.")


def _show_cache(output: Output, query: Query, *, none: str) -> None:
    from gatehub.hub.listing import list_cached

    found = [c for c in list_cached(report=output.note) if query.takes(c.adapter)]
    rows = [(*_describe(c.adapter), c.hub) for c in found]
    table = make_table((*_COLUMNS, "hub"), rows, left=2)
    output.result(
        {"adapters": [{**asdict(c.adapter), "hub": c.hub, "path": str(c.folder)} for c in found]},
        human=table if found else none,
        quiet="\n".join(str(c.folder) for c in found),
    )


def _show_adapters(output: Output, found: Sequence[ListedAdapter], *, none: str) -> None:
    table: Table = make_table(_COLUMNS, [_describe(adapter) for adapter in found], left=2)
    output.result(
        {"adapters": [asdict(adapter) for adapter in found]},
        human=table if found else none,
        quiet="\n".join(adapter.repo for adapter in found),
    )


_COLUMNS = ("name", "task", "classes", "backbone", "gates", "size", "accuracy", "commit")


def _describe(adapter: ListedAdapter) -> tuple[str, ...]:
    return (
        adapter.repo,
        adapter.task,
        str(adapter.classes),
        adapter.backbone,
        adapter.gates,
        format_bytes(adapter.bytes),
        "" if adapter.accuracy is None else format_percent(adapter.accuracy),
        adapter.commit[:8],
    )
