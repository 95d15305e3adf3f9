"""What any hub does: the seam behind which a folder, and whatever else stores adapters, stands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from gatehub.errors import HubError
from gatehub.hub.manifest import AdapterSummary, StoredFile

# Two characters at least: "C:\\hub" is a path.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """What a push did.

    Attributes:
        repo: `org/name`.
        revision: the branch.
        commit: the commit id that holds the pushed content.
        url: where the repository lies.
        created: False if the branch's head held the same content already.
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
        backbone: the backbone's name, with its tag where it has one.
        gates: the kind of the gates.
        bytes: size of all its files.
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


class Hub(Protocol):
    """A place that keeps adapters under `org/name`, every state of them for good."""

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
    ) -> PushResult:
        """Make `files` of `folder` the head of a branch, in one commit on top of its head.

        The head is read before anything is sent. If another push lands on the branch after
        that, nothing of it is overwritten: with the same content this push succeeds (and has
        created nothing), otherwise it is refused.

        Raises:
            HubNameError: a name that is not valid.
            HubConflictError: another push landed first, or the tag names another commit.
            HubError: a file no longer has the bytes that `files` says.
        """

    def resolve(self, repo: str, revision: str) -> str:
        """The commit id behind a branch, a tag, a commit id or its unique beginning.

        Raises:
            RepositoryNotFoundError: no such repository.
            RevisionNotFoundError: nothing, or more than one commit, answers to the revision.
        """

    def files(self, repo: str, commit: str) -> Mapping[str, StoredFile]:
        """Name, size and digest of every file of a commit."""

    def fetch(self, repo: str, commit: str, name: str, target: Path) -> None:
        """Write one file of a commit to a new path, forced to the disk.

        Raises:
            HubIntegrityError: the stored bytes are not the pushed ones. What was written to
                `target` by then is not to be used.
        """

    def list_adapters(self) -> list[ListedAdapter]:
        """Every repository, by name."""

    def list_revisions(self, repo: str) -> list[ListedRevision]:
        """Every commit of a repository: `main` first, each branch from its head backwards.

        Raises:
            RepositoryNotFoundError: no such repository.
        """


def open_hub(hub: str | Path | None = None) -> Hub:
    """The hub that a path or URL names.

    Args:
        hub: a folder's path or `file://` URL; None asks the environment's GATEHUB_HUB.

    Raises:
        HubError: no hub is named, or it is none that this version speaks to.
    """
    from urllib.request import url2pathname  # brings a whole HTTP client along

    from gatehub.hub.folder import FolderHub  # which implements the seam above

    place = os.environ.get("GATEHUB_HUB", "") if hub is None else str(hub)
    if not place:
        raise HubError(
            "No hub is named, and this version of gatehub speaks to folder hubs only.",
            hint="Give the folder's path (--hub DIR, or hub=DIR in Python), or set GATEHUB_HUB.",
        )
    scheme = _URL.match(place)
    if scheme is None:
        return FolderHub(Path(place).expanduser())
    url = urlsplit(place)
    if scheme[1].lower() != "file" or url.netloc not in ("", "localhost") or not url.path:
        raise HubError(
            f"'{place}' is not a hub that this version of gatehub speaks to.",
            hint="Give a folder's path or a file:///… URL (--hub DIR, or GATEHUB_HUB).",
        )
    return FolderHub(Path(url2pathname(url.path)))
