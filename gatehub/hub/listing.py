"""What there is on a hub: list and search."""

from __future__ import annotations

from pathlib import Path

from gatehub.hub.names import check_repository
from gatehub.hub.protocol import ListedAdapter, ListedRevision, Query, Report, open_hub
from gatehub.hub.pushing import told, warn


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
        limit: at most so many adapters are looked at.
        hub: see `open_hub`.
        report: told of each repository that cannot be shown; None issues `HubWarning`.
    """
    query = Query(backbone=backbone, task=task, author=author, limit=limit)
    with told("Searching the hub"):
        return open_hub(hub).list_adapters(query, report or warn)


def list_adapters(
    hub: str | Path | None = None, *, report: Report | None = None
) -> list[ListedAdapter]:
    """Every adapter of a hub in its newest state, by name; see `search`."""
    with told("Listing the hub"):
        return open_hub(hub).list_adapters(Query(), report or warn)


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
