"""Landing a commit on a Hub's branch, whatever becomes of the answer."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import GitCommitInfo

from gatehub._huggingface.refusals import find_cause, persist
from gatehub._retries import retry
from gatehub.errors import HubError, HubUnreachableError
from gatehub.hub.files import MAX_FILE_BYTES, StoredFile, changed_meanwhile
from gatehub.hub.huggingface.client import ATTEMPTS, HubClient, is_ambiguous
from gatehub.hub.names import landed_first

_MARK = "gatehub-push: "


class Landing:
    """One commit on its way to a branch of a Hub."""

    def __init__(
        self,
        client: HubClient,
        folder: Path,
        files: Mapping[str, StoredFile],
        repo: str,
        branch: str,
        head: str | None,
        message: str,
    ) -> None:
        self._client = client
        self._api = client.api
        self._folder = folder
        self._files = files
        self._repo = repo
        self._branch = branch
        self._head = head
        self._message = message
        self._id = secrets.token_hex(12)

    def land(self) -> tuple[str, bool]:
        """Commit, and find out whether it landed; see the module.

        Returns:
            The commit that holds the content, and whether this push made it.
        """

        def wait(error: Exception, failed: int) -> float | None:
            cause = error.__cause__
            return 2.0**failed if cause is not None and is_ambiguous(find_cause(cause)) else None

        return retry(self._try, attempts=ATTEMPTS, wait=wait)

    def _try(self) -> tuple[str, bool]:
        try:
            with self._client.asking(f"Pushing to {self._repo}", self._repo, self._branch):
                return self._commit(), True
        except HubError as error:
            cause = None if error.__cause__ is None else find_cause(error.__cause__)
            # Some versions of the client stumble over the answer to a commit that landed.
            stumbled = isinstance(cause, ValueError) and not isinstance(cause, HfHubHTTPError)
            if cause is None or not (stumbled or is_ambiguous(cause)):
                raise
            if (outcome := self._look_again(error)) is not None:
                return outcome
            raise

    def _commit(self) -> str:
        there = {} if self._head is None else self._client.files(self._repo, self._head)
        operations: list[Any] = [
            CommitOperationAdd(name, str(self._folder / name)) for name in sorted(self._files)
        ]
        operations += [
            CommitOperationDelete(name)
            for name in sorted(MAX_FILE_BYTES)
            if name in there and name not in self._files
        ]
        for operation, name in zip(operations, sorted(self._files), strict=False):
            info = operation.upload_info
            if StoredFile(bytes=info.size, sha256=info.sha256.hex()) != self._files[name]:
                raise changed_meanwhile(self._folder / name)
        made = self._api.create_commit(
            self._repo,
            operations,
            commit_message=self._message,
            commit_description=f"{_MARK}{self._id}",
            parent_commit=self._head,
            revision=self._branch,
        )
        return str(made.oid)

    def _look_again(self, error: HubError) -> tuple[str, bool] | None:
        """What became of the commit; None if the branch is where it was, so it did not land."""
        try:
            history = persist(self._read_history)
        except HubError as unreadable:
            raise HubUnreachableError(
                f"{error.message} Whether the push landed cannot be seen now: {unreadable.message}",
                hint="Run the same again: content that is there already makes no second commit.",
            ) from error
        for entry in history:
            if entry.commit_id == self._head:
                break
            if f"{_MARK}{self._id}" in (entry.message or ""):
                return entry.commit_id, True
        found = history[0].commit_id if history else None
        if found == self._head:
            return None
        if found is not None and self._client.is_same(self._repo, found, self._folder, self._files):
            return found, False
        raise landed_first(self._repo, self._branch, expected=self._head, found=found)

    def _read_history(self) -> list[GitCommitInfo]:
        with self._client.asking(f"Reading {self._repo}", self._repo, self._branch):
            return self._api.list_repo_commits(self._repo, revision=self._branch)
