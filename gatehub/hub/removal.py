"""Deleting from a folder hub: branches by an entry that says so, tags by forgetting them."""

from __future__ import annotations

from gatehub.errors import HubConflictError, RevisionNotFoundError
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.names import check_ref


def delete_repository(hub: FolderHub, repo: str) -> None:
    """Delete a repository: its tags, then its branches. What was pushed stays until the
    next collection of garbage, for those who know its commit.

    Raises:
        RepositoryNotFoundError: no such repository.
        HubConflictError: somebody pushed meanwhile; some of it may be deleted already.
    """
    repository = hub.existing(repo)
    for tag in repository.tags():
        repository.untag(tag)
    for branch in repository.branches():
        delete_branch(hub, repo, branch)


def delete_tag(hub: FolderHub, repo: str, tag: str) -> None:
    """Delete a tag; its commit stays.

    Raises:
        RepositoryNotFoundError: no such repository.
        RevisionNotFoundError: no such tag.
    """
    repository = hub.existing(repo)
    if repository.tagged(check_ref(tag)) is None:
        raise RevisionNotFoundError(f"{repo} has no tag '{tag}'.")
    repository.untag(tag)


def delete_branch(hub: FolderHub, repo: str, branch: str) -> None:
    """Delete a branch; commits that a tag or another branch leads to stay.

    Raises:
        RepositoryNotFoundError: no such repository.
        RevisionNotFoundError: no such branch.
        HubConflictError: somebody pushed to it meanwhile.
    """
    repository = hub.existing(repo)
    head = repository.head(check_ref(branch))
    if head is None:
        raise RevisionNotFoundError(f"{repo} has no branch '{branch}'.")
    if not repository.advance(branch, head.number + 1, None):
        found = repository.head(branch, at_least=head.number + 1)
        if found is not None:
            raise HubConflictError(
                f"Somebody pushed {found.commit} to {repo}@{branch} meanwhile.",
                hint="Look at it, and delete again.",
                expected=head.commit,
                found=found.commit,
            )
