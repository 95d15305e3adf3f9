"""What is asked of one Hub: the commits, files and names of its repositories."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import GitCommitInfo, RepoFile

from gatehub._huggingface.refusals import asking, current_endpoint, explain, httpx, persist, redact
from gatehub._huggingface.tokens import choose_token
from gatehub.errors import HubIntegrityError, RevisionNotFoundError
from gatehub.hub.files import MAX_FILE_BYTES, GitFile, KnownFile, StoredFile, is_same
from gatehub.hub.names import (
    DEFAULT_BRANCH,
    check_repository,
    check_revision,
    complete_commit,
    is_commit,
    is_commit_prefix,
)
from gatehub.hub.protocol import ListedRevision, Refs, format_time

ATTEMPTS = 4


class HubClient:
    """The asking half of a Hub; what it answers is what `Hub` says.

    Args:
        endpoint: its address; None is the environment's HF_ENDPOINT, or huggingface.co.
        trusted: whether it may get the user's token, which never goes over plain HTTP to another
            machine.
    """

    def __init__(self, endpoint: str | None = None, *, trusted: bool = True) -> None:
        self.endpoint = (endpoint or current_endpoint()).rstrip("/")
        self.api = HfApi(
            endpoint=self.endpoint,
            token=choose_token(self.endpoint) if trusted else False,
            library_name="gatehub",
            library_version=version("gatehub"),
        )
        self._names: dict[str, str] = {}
        self._listings: dict[tuple[str, str], Mapping[str, KnownFile]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({redact(self.endpoint)!r})"

    @property
    def key(self) -> str:
        """See `Hub.key`."""
        address = redact(self.endpoint)
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", address.partition("://")[2]).strip("-.")
        # Other addresses can be written alike: https://h/team and https://h-team.
        return f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"

    @property
    def place(self) -> str:
        """See `Hub.place`."""
        return redact(self.endpoint)

    def asking(
        self, what: str, repo: str, revision: str | None, filename: str | None = None
    ) -> AbstractContextManager[None]:
        """See `gatehub._huggingface.refusals.asking`."""
        return asking(what, repo, endpoint=self.endpoint, revision=revision, filename=filename)

    def resolve(self, repo: str, revision: str) -> str:
        """See `Hub.resolve`."""
        check_revision(revision)
        return persist(lambda: self._resolve(repo, revision))

    def _resolve(self, repo: str, revision: str) -> str:
        with self.asking(f"Asking for {repo}", repo, revision):
            try:
                info = self.api.model_info(repo, revision=revision)
            except HfHubHTTPError as error:
                return self._complete(repo, revision, error)
        self._names[repo] = check_repository(info.id)
        commit = str(info.sha)
        if not is_commit(commit):
            raise HubIntegrityError(f"{self.place} gave {commit[:80]!r} as a commit of {repo}.")
        return commit

    def _complete(self, repo: str, beginning: str, error: HfHubHTTPError) -> str:
        """The one commit that begins so; a Hub itself knows whole commit ids only."""
        told = explain(error, "Asking", repo, endpoint=self.endpoint)
        if not isinstance(told, RevisionNotFoundError) or not is_commit_prefix(beginning):
            raise error
        found = complete_commit(repo, beginning, (row.commit for row in self.list_revisions(repo)))
        if found is None or is_commit(beginning):
            raise error
        return found

    def present_name(self, repo: str) -> str:
        """See `Hub.present_name`."""
        return self._names.get(repo, repo)

    def files(self, repo: str, commit: str) -> Mapping[str, KnownFile]:
        """See `Hub.files`."""
        if (repo, commit) not in self._listings:
            self._listings[repo, commit] = persist(lambda: self._list_files(repo, commit))
        return self._listings[repo, commit]

    def _list_files(self, repo: str, commit: str) -> Mapping[str, KnownFile]:
        with self.asking(f"Asking for the files of {repo}", repo, commit):
            return {
                entry.path: (
                    GitFile(bytes=entry.size, oid=entry.blob_id)
                    if entry.lfs is None
                    else StoredFile(bytes=entry.size, sha256=entry.lfs.sha256)
                )
                for entry in self.api.list_repo_tree(repo, revision=commit)
                if isinstance(entry, RepoFile)
            }

    def list_revisions(self, repo: str) -> list[ListedRevision]:
        """See `Hub.list_revisions`."""
        with self.asking(f"Listing {repo}", repo, None):
            refs = self._refs(repo)
            histories = {b: self.api.list_repo_commits(repo, revision=b) for b in refs.branches}
        return arrange_history(histories, refs)

    def refs(self, repo: str) -> Refs:
        """See `Hub.refs`."""

        def ask() -> Refs:
            with self.asking(f"Asking for the branches and tags of {repo}", repo, None):
                return self._refs(repo)

        return persist(ask)

    def _refs(self, repo: str) -> Refs:
        refs = self.api.list_repo_refs(repo)
        heads = {branch.name: branch.target_commit for branch in refs.branches}
        order = sorted(heads, key=lambda branch: (branch != DEFAULT_BRANCH, branch))
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        return Refs(
            branches={branch: heads[branch] for branch in order},
            tags={tag: tags[tag] for tag in sorted(tags)},
        )

    def is_same(
        self, repo: str, commit: str, folder: Path, files: Mapping[str, StoredFile]
    ) -> bool:
        """Whether a commit holds exactly these files of an adapter, whatever else it holds."""
        there = {n: known for n, known in self.files(repo, commit).items() if n in MAX_FILE_BYTES}
        return there.keys() == files.keys() and all(
            is_same(folder / name, known, files[name]) for name, known in there.items()
        )


def is_ambiguous(error: BaseException) -> bool:
    """Whether a failed request may have been carried out, or may be when it comes again."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 409, 412, 425) or (
            error.response.status_code >= 500
        )
    return isinstance(error, httpx.HTTPError)


def arrange_history(
    histories: Mapping[str, Sequence[GitCommitInfo]], refs: Refs
) -> list[ListedRevision]:
    """Return each commit once, with the branches and tags that name it.

    Args:
        histories: the commits of each branch, newest first.
        refs: its branches and tags.
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
                    created=format_time(entry.created_at),
                    branches=tuple(b for b, head in refs.branches.items() if head == commit),
                    tags=tuple(t for t, tagged in refs.tags.items() if tagged == commit),
                ),
            )
    return list(rows.values())
