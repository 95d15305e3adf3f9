"""What any hub does: the seam behind which a folder, and whatever else stores adapters, stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gatehub.hub.files import KnownFile, StoredFile
from gatehub.hub.reports import Report

MAX_FIELD_CHARACTERS = 300
_FOLDER = "local-dir:"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSummary:
    """What a listing shows of an adapter, so that it need not open every adapter.

    Attributes:
        task: the task's name.
        classes: number of classes.
        backbone: the backbone's name, as `load_backbone` takes it.
        gates: the kind of the gates.
        accuracy: fraction of the validation split, None where nobody measured it.
    """

    task: str
    classes: int
    backbone: str
    gates: str
    accuracy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What a push did.

    Attributes:
        repo: `org/name`.
        revision: the branch.
        commit: the commit id that holds the pushed content.
        url: where the repository lies.
        created: False if the branch's head held the same content already. Where somebody else
            lands the same content in the very moment of a push, a Hub does not say whose it is.
    """

    repo: str
    revision: str
    commit: str
    url: str
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAdapter:
    """The newest state of one repository.

    Attributes:
        repo: `org/name`.
        revision: the branch that is shown: `main`, or the first by name where there is none.
        commit: the branch's head.
        task: the task's name.
        classes: number of classes.
        backbone: the backbone's name, as `load_backbone` takes it.
        gates: the kind of the gates.
        bytes: size of its gates, normalisation values and head (gates.safetensors).
        accuracy: fraction of the validation split, None where nobody measured it.
        updated: when the head was pushed, UTC, ISO 8601.
    """

    repo: str
    revision: str
    commit: str
    task: str
    classes: int
    backbone: str
    gates: str
    bytes: int
    accuracy: float | None
    updated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRevision:
    """One commit of a repository's history.

    Attributes:
        commit: its id.
        parent: the commit it was built on, None for the first of a branch.
        message: what the pusher said.
        created: when it was pushed, UTC, ISO 8601, by the pusher's clock.
        branches: the branches whose head it is.
        tags: the tags that name it.
    """

    commit: str
    parent: str | None
    message: str
    created: str
    branches: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refs:
    """What a repository's names lead to.

    Attributes:
        branches: each branch and its head: `main` first, then by name.
        tags: each tag and its commit, by name.
    """

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which adapters a listing is to show.

    Attributes:
        backbone: name of their backbone as `load_backbone` takes it ("resnet18.a1_in1k", "demo",
            "hf-hub:ORG/NAME", "local-dir:PATH"), with or without its tag, or its repository on
            the Hub.
        task: a part of the task's name, in any case.
        author: the `org` of `org/name`.
        limit: how many are looked at, at most.
    """

    backbone: str | None = None
    task: str | None = None
    author: str | None = None
    limit: int = 1_000

    @property
    def base_model(self) -> str | None:
        """The backbone's repository on the Hub, None where the name does not tell it."""
        name = _plain(self.backbone or "")
        if not name or name.startswith(_FOLDER):
            return None
        if "/" in name:
            return name
        return f"timm/{name}" if "." in name else None

    def takes(self, row: ListedAdapter) -> bool:
        """Whether an adapter is one of those."""
        name, found = _plain(self.backbone or ""), _plain(row.backbone)
        untagged = found if "/" in found or ":" in found else found.partition(".")[0]
        return (
            name in ("", found, untagged)
            and (self.task or "").casefold() in row.task.casefold()
            and self.author in (None, row.repo.partition("/")[0])
        )


def format_time(moment: datetime) -> str:
    """Return a moment in UTC as listings and manifests write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _plain(backbone: str) -> str:
    """A backbone's name without what does not tell it from others.

    "hf-hub:timm/resnet18.a1_in1k@3f9a…" is "resnet18.a1_in1k", and a folder is its last name.
    """
    if backbone.startswith(_FOLDER):
        return _FOLDER + re.split(r"[/\\]", backbone.rstrip("/\\"))[-1].removeprefix(_FOLDER)
    return backbone.removeprefix("hf-hub:").partition("@")[0].removeprefix("timm/")


class Hub(Protocol):
    """A place that keeps adapters under `org/name`, every state of them for good."""

    @property
    def key(self) -> str:
        """A name for this hub that no other has, as a folder of the cache."""

    @property
    def place(self) -> str:
        """Where it is, as a person reads it; no secret is in it."""

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
        """Make `files` of `folder` the head of a branch, in one commit on top of its head.

        The head is read before anything is sent. If another push lands on the branch after
        that, nothing of it is overwritten: with the same content this push succeeds (and has
        created nothing), otherwise it is refused.

        Raises:
            HubNameError: a name that is not valid.
            HubConflictError: another push landed first.
            HubTagError: the tag names another commit.
            HubError: a file no longer has the bytes that `files` says.
        """

    def resolve(self, repo: str, revision: str) -> str:
        """The commit id behind a branch, a tag, a commit id or its unique beginning.

        Raises:
            RepositoryNotFoundError: no such repository.
            RevisionNotFoundError: nothing, or more than one commit, answers to the revision.
        """

    def refs(self, repo: str) -> Refs:
        """The branches and tags of a repository.

        Raises:
            RepositoryNotFoundError: no such repository.
        """

    def present_name(self, repo: str) -> str:
        """What a repository that was resolved is called now; another name if it was moved."""

    def files(self, repo: str, commit: str) -> Mapping[str, KnownFile]:
        """Name, size and digest of every file of a commit."""

    def fetch(self, repo: str, commit: str, name: str, target: Path) -> None:
        """Write one file of a commit to a new path, forced to the disk.

        Raises:
            HubIntegrityError: the stored bytes are not the pushed ones. What was written to
                `target` by then is not to be used.
        """

    def list_adapters(self, query: Query, report: Report) -> list[ListedAdapter]:
        """Every repository that is asked for, by name.

        Args:
            query: which.
            report: told of each repository that cannot be shown, and why.
        """

    def list_revisions(self, repo: str) -> list[ListedRevision]:
        """Every commit of a repository: `main` first, each branch from its head backwards.

        Raises:
            RepositoryNotFoundError: no such repository.
        """
