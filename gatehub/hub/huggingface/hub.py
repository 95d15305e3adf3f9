"""The Hugging Face Hub, or a server of one's own that speaks its protocol.

A push is one commit that names its parent, so it lands on the head it was built on or not
at all. When the answer says nothing (a lost connection, a 5xx, a 412 that may mean our own
commit), the branch is read again: the push is in its history, or its content is the head's,
or somebody else's commit stands there. Every push carries a random id in its description,
which is how it is known again, even under later commits.

A pull asks for files of one commit by its 40 digits, and compares each with the digest that
the Hub's listing of that commit gives: SHA-256 for large files, git's own for small ones.
The client itself compares sizes only.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import RepoFile

from gatehub._disk import sync_file
from gatehub._huggingface.patience import PATIENCE_S
from gatehub._huggingface.refusals import asking, current_endpoint, explain, persist, redact
from gatehub.errors import (
    HubBusyError,
    HubError,
    HubIntegrityError,
    HubNameError,
    HubUnreachableError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.hub.files import MAX_FILE_BYTES, GitFile, KnownFile, StoredFile, is_same
from gatehub.hub.huggingface.cards import list_cards
from gatehub.hub.huggingface.client import arrange_history, complete_commit
from gatehub.hub.huggingface.landing import ATTEMPTS, Landing
from gatehub.hub.huggingface.tags import check_tag, put_tag
from gatehub.hub.names import (
    DEFAULT_BRANCH,
    check_ref,
    check_repository,
    check_revision,
    is_commit,
    is_commit_prefix,
)
from gatehub.hub.protocol import AdapterSummary, ListedAdapter, ListedRevision, PushResult, Query
from gatehub.hub.reports import Report


class HuggingFaceHub:
    """One Hub.

    Args:
        endpoint: its address; None is the environment's HF_ENDPOINT, or huggingface.co.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = (endpoint or current_endpoint()).rstrip("/")
        self.api = HfApi(
            endpoint=self.endpoint, library_name="gatehub", library_version=version("gatehub")
        )
        self._names: dict[str, str] = {}
        self._listings: dict[tuple[str, str], Mapping[str, KnownFile]] = {}

    def __repr__(self) -> str:
        return f"HuggingFaceHub({redact(self.endpoint)!r})"

    @property
    def key(self) -> str:
        """See `Hub.key`."""
        address = redact(self.endpoint).partition("://")[2]
        return re.sub(r"[^A-Za-z0-9.-]+", "-", address).strip("-.")

    @property
    def place(self) -> str:
        """See `Hub.place`."""
        return redact(self.endpoint)

    def push(
        self,
        folder: Path,
        files: Mapping[str, StoredFile],
        repo: str,
        *,
        revision: str,
        tag: str | None,
        message: str,
        summary: AdapterSummary,
        private: bool = False,
    ) -> PushResult:
        """See `Hub.push`. A branch that does not exist begins at the head of `main`."""
        check_ref(revision)
        if tag is not None:
            check_ref(tag)
        name, head, same = persist(
            lambda: self._prepare(folder, files, repo, revision, tag, private)
        )
        if head is not None and same:
            commit, created = head, False
        else:
            landing = Landing(self, folder, files, name, revision, head, message)
            commit, created = landing.land()
        if tag is not None:
            put_tag(self, name, tag, commit)
        return PushResult(
            repo=name,
            revision=revision,
            commit=commit,
            url=f"{self.place}/{name}/tree/{revision}",
            created=created,
        )

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

    def fetch(self, repo: str, commit: str, name: str, target: Path) -> None:
        """See `Hub.fetch`."""
        known = self.files(repo, commit)[name]
        for attempt in range(ATTEMPTS):
            last, began = attempt == ATTEMPTS - 1, time.monotonic()
            # Not the client's own cache: what lies there is believed by its size.
            with TemporaryDirectory(dir=target.parent, prefix=".fetching-") as place:
                try:
                    with self.asking(f"Fetching {name} of {repo}", repo, commit, name):
                        fetched = Path(
                            hf_hub_download(
                                repo,
                                name,
                                revision=commit,
                                local_dir=place,
                                endpoint=self.endpoint,
                                token=self.api.token,
                                library_name="gatehub",
                            )
                        )
                except HubUnreachableError as error:
                    vain = isinstance(error, HubBusyError) or isinstance(
                        error.__cause__, OfflineModeIsEnabled
                    )
                    if last or vain or time.monotonic() - began > PATIENCE_S:
                        raise
                    time.sleep(2**attempt)
                    continue
                if is_same(fetched, known):
                    shutil.move(fetched, target)
                    sync_file(target)
                    return
        raise HubIntegrityError(
            f"{name} of {repo} came {ATTEMPTS} times with other bytes than {self.place} lists for "
            f"commit {commit[:12]}.",
            hint="A proxy or the hub damages it; nothing was kept. Try again, or another network.",
        )

    def list_adapters(self, query: Query, report: Report) -> list[ListedAdapter]:
        """See `Hub.list_adapters`. What a card does not say is not asked for."""
        return list_cards(self, query, report)

    def list_revisions(self, repo: str) -> list[ListedRevision]:
        """See `Hub.list_revisions`."""
        with self.asking(f"Listing {repo}", repo, None):
            branches, tags = self._refs(repo)
            order = sorted(branches, key=lambda branch: (branch != DEFAULT_BRANCH, branch))
            histories = {b: self.api.list_repo_commits(repo, revision=b) for b in order}
        return arrange_history(histories, branches=branches, tags=tags)

    def asking(
        self, what: str, repo: str, revision: str | None, filename: str | None = None
    ) -> AbstractContextManager[None]:
        """See `gatehub._huggingface.refusals.asking`."""
        return asking(what, repo, endpoint=self.endpoint, revision=revision, filename=filename)

    def _prepare(
        self,
        folder: Path,
        files: Mapping[str, StoredFile],
        repo: str,
        revision: str,
        tag: str | None,
        private: bool,
    ) -> tuple[str, str | None, bool]:
        """The repository's name, the branch's head, and whether that holds the content already.

        Repository and branch are made if they are not there.
        """
        with self.asking(f"Pushing to {repo}", repo, revision):
            name = self._open(repo, private)
            branches, tags = self._refs(name)
            if revision in tags:
                raise HubNameError(
                    f"'{revision}' is a tag of {name}, and tags stay where they are."
                )
            if revision not in branches and branches:
                self.api.create_branch(name, branch=revision, exist_ok=True)
                branches, tags = self._refs(name)
            head = branches.get(revision)
            same = head is not None and self.is_same(name, head, folder, files)
            if tag is not None:
                check_tag(self, name, tag, branches, tags, head if same else None)
        return name, head, same

    def _open(self, repo: str, private: bool) -> str:
        """Make the repository if there is none, and return its present name."""
        try:
            info = self.api.model_info(repo)
        except HfHubHTTPError as error:
            told = explain(error, "Asking", repo, endpoint=self.endpoint)
            if not isinstance(told, RepositoryNotFoundError):
                raise
            self.api.create_repo(repo, private=private or None, exist_ok=True)
            info = self.api.model_info(repo)
        if private and not info.private:
            raise HubError(
                f"{repo} exists on {self.place} and is public; nothing was pushed.",
                hint="Push without --private, under another name, or make it private there.",
            )
        self._names[repo] = check_repository(info.id)
        return self._names[repo]

    def _refs(self, repo: str) -> tuple[dict[str, str], dict[str, str]]:
        refs = self.api.list_repo_refs(repo)
        return (
            {branch.name: branch.target_commit for branch in refs.branches},
            {tag.name: tag.target_commit for tag in refs.tags},
        )

    def is_same(
        self, repo: str, commit: str, folder: Path, files: Mapping[str, StoredFile]
    ) -> bool:
        """Whether a commit holds exactly these files of an adapter, whatever else it holds."""
        there = {n: known for n, known in self.files(repo, commit).items() if n in MAX_FILE_BYTES}
        return there.keys() == files.keys() and all(
            known == files[name] if isinstance(known, StoredFile) else is_same(folder / name, known)
            for name, known in there.items()
        )

    def _complete(self, repo: str, beginning: str, error: HfHubHTTPError) -> str:
        """The one commit that begins so; a Hub itself knows whole commit ids only."""
        told = explain(error, "Asking", repo, endpoint=self.endpoint)
        if not isinstance(told, RevisionNotFoundError) or not is_commit_prefix(beginning):
            raise error
        found = complete_commit(repo, beginning, self.list_revisions(repo))
        if found is None or is_commit(beginning):
            raise error
        return found
