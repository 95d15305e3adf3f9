"""What there is on a hub, or in the cache: list and search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gatehub._arguments import checked
from gatehub.errors import AdapterError, HubError
from gatehub.hub.cache import cached_adapters
from gatehub.hub.names import check_repository
from gatehub.hub.opening import open_hub
from gatehub.hub.protocol import ListedAdapter, ListedRevision, Query
from gatehub.hub.reports import Report, told, warn


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAdapter:
    """One adapter in the cache.

    Attributes:
        adapter: what it is; its revision is its commit.
        hub: the hub's part of the cache.
        folder: where it lies.
    """

    adapter: ListedAdapter
    hub: str
    folder: Path


@checked(HubError)
def search(
    *,
    backbone: str | None = None,
    task: str | None = None,
    author: str | None = None,
    limit: int = 1_000,
    hub: str | Path | None = None,
    report: Report | None = None,
) -> list[ListedAdapter]:
    """The adapters of a hub that are for a backbone, a task or of an author, by name.

    Args:
        backbone: its name as `load_backbone` takes it, with or without its tag, or its
            repository on the Hub.
        task: a part of the task's name.
        author: the `org` of `org/name`.
        limit: how many adapters are looked at, at most.
        hub: see `open_hub`.
        report: told of each repository that cannot be shown; None issues `HubWarning`.
    """
    query = Query(backbone=backbone, task=task, author=author, limit=limit)
    return _list("Searching the hub", query, hub, report)


@checked(HubError)
def list_adapters(
    hub: str | Path | None = None, *, report: Report | None = None
) -> list[ListedAdapter]:
    """Every adapter of a hub in its newest state, by name; see `search`."""
    return _list("Listing the hub", Query(), hub, report)


def _list(
    doing: str, query: Query, hub: str | Path | None, report: Report | None
) -> list[ListedAdapter]:
    with told(doing):
        return open_hub(hub).list_adapters(query, report or warn)


@checked(HubError)
def list_revisions(repo: str, hub: str | Path | None = None) -> list[ListedRevision]:
    """The history of one adapter: `main` first, each branch from its head backwards.

    Args:
        repo: `org/name`.
        hub: see `open_hub`.

    Raises:
        RepositoryNotFoundError: no such repository.
    """
    check_repository(repo)
    with told(f"Listing {repo}"):
        return open_hub(hub).list_revisions(repo)


def list_cached(report: Report) -> list[CachedAdapter]:
    """Every adapter in the cache, by hub and name.

    Args:
        report: told of each folder that is not a sound adapter.
    """
    # Loads torch, which nothing else in this package needs.
    from gatehub.adapter.card import name_backbone
    from gatehub.adapter.files import verify_adapter
    from gatehub.adapter.folder import TENSORS_FILE

    rows = []
    for hub, repo, folder in cached_adapters():
        try:
            config = verify_adapter(folder)
        except AdapterError as error:
            report(f"{repo} in the cache is left out: {error.message}")
            continue
        rows.append(
            CachedAdapter(
                adapter=ListedAdapter(
                    repo=repo,
                    revision=folder.name,
                    commit=folder.name,
                    task=config.task,
                    classes=len(config.labels),
                    backbone=name_backbone(config),
                    gates=config.layout.policy,
                    bytes=(folder / TENSORS_FILE).stat().st_size,
                    accuracy=config.metrics.get("accuracy"),
                    updated="",
                ),
                hub=hub,
                folder=folder,
            )
        )
    return rows
