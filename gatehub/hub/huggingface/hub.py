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

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError

from gatehub._disk import sync_file
from gatehub._huggingface.patience import PATIENCE_S
from gatehub._huggingface.refusals import explain, may_pass, persist
from gatehub._retries import retry
from gatehub.errors import (
    HubError,
    HubIntegrityError,
    RepositoryNotFoundError,
)
from gatehub.hub.files import StoredFile, is_same
from gatehub.hub.huggingface.cards import list_cards
from gatehub.hub.huggingface.client import ATTEMPTS, HubClient
from gatehub.hub.huggingface.landing import Landing
from gatehub.hub.huggingface.tags import put_tag
from gatehub.hub.names import check_branch, check_ref, check_repository, check_tag
from gatehub.hub.protocol import AdapterSummary, ListedAdapter, PushResult, Query
from gatehub.hub.reports import Report


class HuggingFaceHub(HubClient):
    """One Hub: what is asked of it (`HubClient`), pushes, files and listings.

    Args:
        endpoint: its address; None is the environment's HF_ENDPOINT, or huggingface.co.
    """

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

    def fetch(self, repo: str, commit: str, name: str, target: Path) -> None:
        """See `Hub.fetch`."""
        known = self.files(repo, commit)[name]

        def fetch() -> None:
            # Not the client's own cache: it trusts a file by its size.
            with TemporaryDirectory(dir=target.parent, prefix=".fetching-") as place:
                with self.asking(f"Fetching {name} of {repo}", repo, commit, name):
                    fetched = hf_hub_download(
                        repo,
                        name,
                        revision=commit,
                        local_dir=place,
                        endpoint=self.endpoint,
                        token=self.api.token,
                        library_name="gatehub",
                    )
                if not is_same(Path(fetched), known):
                    raise HubIntegrityError(
                        f"{name} of {repo} came {ATTEMPTS} times with other bytes than "
                        f"{self.place} lists for commit {commit[:12]}.",
                        hint="A proxy or the hub damages it; nothing was kept. Try again, or "
                        "another network.",
                    )
                shutil.move(fetched, target)
                sync_file(target)

        def wait(error: Exception, failed: int) -> float | None:
            if isinstance(error, HubIntegrityError):
                return 0.0
            return 2.0**failed if may_pass(error) else None

        retry(fetch, attempts=ATTEMPTS, wait=wait, patience_s=PATIENCE_S)

    def list_adapters(self, query: Query, report: Report) -> list[ListedAdapter]:
        """See `Hub.list_adapters`. What a card does not say is not asked for."""
        return list_cards(self, query, report)

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
            refs = self._refs(name)
            check_branch(name, revision, tagged=refs.tags.get(revision))
            if revision not in refs.branches and refs.branches:
                self.api.create_branch(name, branch=revision, exist_ok=True)
                refs = self._refs(name)
            head = refs.branches.get(revision)
            same = head is not None and self.is_same(name, head, folder, files)
            if tag is not None:
                check_tag(
                    name,
                    tag,
                    branches={revision, *refs.branches},
                    taken=self.resolve(name, tag) if tag in refs.tags else None,
                    commit=head if same else None,
                )
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
