"""Looking after a folder hub: verify rereads everything, collect removes what nothing leads to.

Branches are deleted by an entry that says so, tags by forgetting them.

Garbage is what refused and killed pushes leave, and what deleted repositories held. A push
that is under way looks like garbage too, until it lands. So only what is older than a day is
collected; it is set aside first, and put back if something leads to it by then; and every
push looks once more, after it has landed, whether all its bytes are still there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gatehub.errors import (
    HubConflictError,
    HubError,
    HubIntegrityError,
    RevisionNotFoundError,
)
from gatehub.hub.files import StoredFile
from gatehub.hub.folder.hub import FolderHub, blob_key
from gatehub.hub.folder.repository import Repository
from gatehub.hub.names import check_ref
from gatehub.hub.protocol import Hub

DAY_S = 24 * 3600
_TRASH = "trash"
# What a collection may remove: keys that a push makes. Anything else is somebody's own.
_OURS = re.compile(
    r"blobs/(?P<start>[0-9a-f]{2})/(?P=start)[0-9a-f]{62}|repos/[^/]+/[^/]+/manifests/[0-9a-f]{64}\.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubReport:
    """What `verify_hub` read.

    Attributes:
        repositories: how many there are.
        commits: how many something leads to.
        blobs: how many files' bytes were read.
        bytes: their size.
        problems: a sentence for each thing that is not as it must be.
    """

    repositories: int
    commits: int
    blobs: int
    bytes: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect_garbage` removed.

    Attributes:
        blobs: files' bytes that no commit names.
        manifests: commits that nothing leads to.
        temporary: files that killed processes left.
        bytes: the size of the temporary files.
    """

    blobs: int
    manifests: int
    temporary: int
    bytes: int


def verify_hub(hub: Hub) -> HubReport:
    """Read every byte of a folder hub and check it against its digest.

    Raises:
        HubError: it is not a folder hub, or there is none.
    """
    folder = folder_hub(hub)
    problems: list[str] = []
    files: dict[StoredFile, str] = {}
    commits = repositories = 0
    for repository in folder.repositories():
        reached: set[str] = set()
        try:
            for commit, manifest in repository.history():
                reached.add(commit)
                for name, file in manifest.files.items():
                    files.setdefault(file, f"{name} of {repository.name} (commit {commit[:12]})")
            for branch in repository.branches():
                for number, commit in repository.entries(branch):
                    if commit not in reached:
                        problems.append(
                            f"{repository.name}: entry {number} of '{branch}' names {commit[:12]}, "
                            "to which its head does not lead."
                        )
        except HubIntegrityError as error:
            problems.append(f"{repository.name}: {error.message}")
        repositories += bool(reached)
        commits += len(reached)
    for file, what in files.items():
        if not folder.storage.is_sound(blob_key(file), file):
            state = "damaged" if folder.storage.has(blob_key(file)) else "missing"
            problems.append(f"{what} is {state}: push the same adapter again to put it right.")
    return HubReport(
        repositories=repositories,
        commits=commits,
        blobs=len(files),
        bytes=sum(file.bytes for file in files),
        problems=tuple(problems),
    )


def collect_garbage(hub: Hub, *, older_than_s: float = DAY_S) -> Collected:
    """Remove what nothing leads to from a folder hub; pushes may go on meanwhile.

    Args:
        hub: a folder hub.
        older_than_s: younger garbage stays, since it may be a push that has not landed yet.

    Raises:
        HubIntegrityError: the hub is damaged, so what is garbage cannot be told; nothing was
            removed.
        HubError: it is not a folder hub, or there is none.
    """
    folder = folder_hub(hub)
    storage = folder.storage
    _empty_trash(folder)  # of a collection that was killed
    live = _mark(folder)
    found = [
        key
        for key in (*_blobs(folder), *_manifests(folder))
        if key not in live and storage.age_s(key) >= older_than_s
    ]
    for key in found:
        storage.move(key, _trashed(key))
    removed = _empty_trash(folder)
    count, size = storage.sweep(older_than_s=older_than_s)
    return Collected(
        blobs=sum(key.startswith("blobs/") for key in removed),
        manifests=sum(key.startswith("repos/") for key in removed),
        temporary=count,
        bytes=size,
    )


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
                hint="Look at that commit, then delete again.",
                expected=head.commit,
                found=found.commit,
            )


def folder_hub(hub: Hub) -> FolderHub:
    """The hub as a folder hub that has been pushed to.

    Raises:
        HubError: it is none, or there is none.
    """
    if not isinstance(hub, FolderHub):
        raise HubError(
            f"{hub.place} is not a folder hub; it looks after itself.",
            hint="Give a folder, or the URL of an object store.",
        )
    if not hub.storage.exists():
        raise HubError(f"There is no hub at {hub.place}.", hint="Check the path.")
    if not hub.is_begun():
        raise HubError(
            f"{hub.place} is not a hub: nothing in it was pushed by gatehub; it is left as it is.",
            hint="Check the path; the first push makes a hub.",
        )
    return hub


def _mark(folder: FolderHub) -> set[str]:
    """The keys of everything that a branch or a tag leads to."""
    live = set()
    for repository in folder.repositories():
        for commit, manifest in repository.history():
            live.add(repository.manifest_key(commit))
            live |= {blob_key(file) for file in manifest.files.values()}
    return live


def _blobs(folder: FolderHub) -> Iterator[str]:
    for start in folder.storage.names("blobs"):
        for name in folder.storage.names(f"blobs/{start}"):
            if _OURS.fullmatch(key := f"blobs/{start}/{name}"):
                yield key


def _manifests(folder: FolderHub) -> Iterator[str]:
    for repository in folder.repositories():
        yield from _manifests_of(repository)


def _manifests_of(repository: Repository) -> Iterator[str]:
    for commit in repository.manifests():
        yield repository.manifest_key(commit)


def _trashed(key: str) -> str:
    return f"{_TRASH}/{key}"


def _empty_trash(folder: FolderHub) -> list[str]:
    """Put back what something leads to by now, and remove the rest."""
    storage = folder.storage
    trash = [key for key in _walk(folder, _TRASH) if _OURS.fullmatch(key)]
    if not trash:
        return []
    _restore_manifests(folder, set(trash))
    live = _mark(folder)
    removed = []
    for key in trash:
        if key in live:
            if not storage.has(key):
                storage.move(_trashed(key), key)
        else:
            removed.append(key)
        storage.remove(_trashed(key))
    return removed


def _restore_manifests(folder: FolderHub, trash: set[str]) -> None:
    """Put back the manifests to which a branch or a tag leads by now."""
    for repository in folder.repositories():
        heads = [repository.head(branch) for branch in repository.branches()]
        starts = [head.commit for head in heads if head is not None]
        seen: set[str] = set()
        for start in (*starts, *repository.tags().values()):
            commit: str | None = start
            while commit is not None and commit not in seen:
                seen.add(commit)
                key = repository.manifest_key(commit)
                if key in trash and not folder.storage.has(key):
                    folder.storage.move(_trashed(key), key)
                commit = repository.manifest(commit).parent


def _walk(folder: FolderHub, key: str) -> Iterator[str]:
    for name in folder.storage.names(key):
        below = f"{key}/{name}"
        if folder.storage.has(below):
            yield below.removeprefix(f"{_TRASH}/")
        else:
            yield from _walk(folder, below)
