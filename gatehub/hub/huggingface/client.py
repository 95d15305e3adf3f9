"""The commits of a repository on a Hub, as its branches list them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from huggingface_hub.hf_api import GitCommitInfo

from gatehub.errors import RevisionNotFoundError
from gatehub.hub.protocol import ListedRevision


def arrange_history(
    histories: Mapping[str, Sequence[GitCommitInfo]],
    *,
    branches: Mapping[str, str],
    tags: Mapping[str, str],
) -> list[ListedRevision]:
    """Return each commit once, with the branches and tags that name it.

    Args:
        histories: the commits of each branch, newest first.
        branches: the head of each.
        tags: the commit of each.
    """
    rows: dict[str, ListedRevision] = {}
    for history in histories.values():
        parents = [entry.commit_id for entry in history[1:]] + [None]
        for entry, parent in zip(history, parents, strict=True):
            commit = entry.commit_id
            rows.setdefault(
                commit,
                ListedRevision(
                    commit=commit,
                    parent=parent,
                    message=entry.title,
                    created=entry.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                    branches=tuple(b for b in histories if branches[b] == commit),
                    tags=tuple(t for t in sorted(tags) if tags[t] == commit),
                ),
            )
    return list(rows.values())


def complete_commit(repo: str, beginning: str, rows: Sequence[ListedRevision]) -> str | None:
    """Return the one commit that begins so, or None.

    Raises:
        RevisionNotFoundError: several do.
    """
    found = [row.commit for row in rows if row.commit.startswith(beginning.lower())]
    if len(found) > 1:
        raise RevisionNotFoundError(
            f"{len(found)} commits of {repo} begin with '{beginning}'.",
            hint=f"Give more digits: {', '.join(sorted(found))}.",
        )
    return found[0] if found else None
