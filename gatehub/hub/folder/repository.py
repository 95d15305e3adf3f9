"""One repository of a folder hub: its branches, tags and history."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gatehub.errors import HubError, HubIntegrityError
from gatehub.hub.files import is_digest
from gatehub.hub.folder.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from gatehub.hub.folder.storage import Storage
from gatehub.hub.names import DEFAULT_BRANCH, check_repository, is_ref

_MAX_REF_BYTES = 100
_NUMBER = re.compile(r"[0-9]{8}")
_DELETED = "deleted"
# What desktops and network drives leave in a folder, and what could be a tag's name.
_LEFTOVERS = {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Desktop.ini"}
_RESTORE = "Restore that file from a copy of the hub."


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest entry of a branch: its number, counted from 1, and its commit."""

    number: int
    commit: str


class Repository:
    """What lies under one name.

    Args:
        disk: the hub's storage.
        name: `org/name`.
    """

    def __init__(self, disk: Storage, name: str) -> None:
        self._disk = disk
        self.name = check_repository(name)
        self._key = f"repos/{name}"

    def branches(self) -> list[str]:
        """The branches that have a commit: `main` first, then by name."""
        return sorted(
            (name for name in self._named("heads") if self.head(name) is not None),
            key=lambda name: (name != DEFAULT_BRANCH, name),
        )

    def tags(self) -> dict[str, str]:
        """Every tag and its commit, by name."""
        commits = {
            name: self.tagged(name) for name in self._named("tags") if name not in _LEFTOVERS
        }
        return {tag: commit for tag, commit in commits.items() if commit is not None}

    def head(self, branch: str, *, at_least: int = 0) -> Head | None:
        """The newest entry of a branch, None if it has none or was deleted.

        Args:
            branch: its name.
            at_least: a number known to be taken, though a network drive's listing may not
                show it yet.
        """
        number, commit = self.top(branch, at_least=at_least)
        return None if commit is None else Head(number=number, commit=commit)

    def top(self, branch: str, *, at_least: int = 0) -> tuple[int, str | None]:
        """Number and commit of a branch's newest entry, 0 and None if it never had one.

        The commit is None where the branch was deleted.
        """
        number = max((at_least, *self._numbers(branch)))
        return number, self._commit_at(self._entry(branch, number)) if number else None

    def entries(self, branch: str) -> list[tuple[int, str]]:
        """Number and commit of each entry of a branch since it was last deleted, newest first."""
        found = []
        for number in sorted(self._numbers(branch), reverse=True):
            commit = self._commit_at(self._entry(branch, number))
            if commit is None:
                break
            found.append((number, commit))
        return found

    def tagged(self, tag: str) -> str | None:
        """The commit that a tag names, None if there is no such tag."""
        return self._commit_at(f"{self._key}/refs/tags/{tag}")

    def manifest(self, commit: str) -> Manifest:
        """What a commit holds.

        Raises:
            HubIntegrityError: its manifest is missing, or not the one that was written.
        """
        key = self.manifest_key(commit)
        data = self._disk.read(key, max_bytes=MAX_MANIFEST_BYTES)
        path = self._disk.path(key)
        if data is None:
            raise HubIntegrityError(f"{path} is missing from the hub.", hint=_RESTORE)
        if hashlib.sha256(data).hexdigest() != commit:
            raise HubIntegrityError(f"{path} does not hold the bytes written.", hint=_RESTORE)
        try:
            return parse_manifest(data)
        except ValueError as error:
            raise HubIntegrityError(f"{path} is not a manifest: {error}.") from error

    def history(self) -> Iterator[tuple[str, Manifest]]:
        """Every commit once: each branch from its head backwards, in the order of branches.

        What only tags lead to comes after that.
        """
        seen: set[str] = set()
        heads = [self.head(branch) for branch in self.branches()]
        starts = [head.commit for head in heads if head is not None]
        for start in (*starts, *self.tags().values()):
            commit: str | None = start
            while commit is not None and commit not in seen:
                seen.add(commit)
                manifest = self.manifest(commit)
                yield commit, manifest
                commit = manifest.parent

    def check(self, manifest: Manifest) -> None:
        """Refuse a manifest that no reader would accept, before anything is written for it.

        Raises:
            HubError: what about it is not as it must be.
        """
        try:
            parse_manifest(manifest.encode())
        except ValueError as error:
            raise HubError(f"The push to {self.name} cannot be recorded: {error}.") from error

    def record(self, manifest: Manifest) -> str:
        """Store a manifest, to which no branch leads yet, and return its commit id."""
        data = manifest.encode()
        commit = hashlib.sha256(data).hexdigest()
        self._disk.create(self.manifest_key(commit), data)
        return commit

    def advance(self, branch: str, number: int, commit: str | None) -> bool:
        """Make a commit the `number`-th entry of a branch, unless there is another already.

        Args:
            branch: its name.
            number: one more than that of its newest entry.
            commit: None deletes the branch: it has no head until the next push.

        Returns:
            Whether this call did it.
        """
        return self._disk.create(self._entry(branch, number), f"{commit or _DELETED}\n".encode())

    def untag(self, tag: str) -> None:
        """Forget a tag."""
        self._disk.remove(f"{self._key}/refs/tags/{tag}")

    def manifests(self) -> list[str]:
        """The commits that there are manifests of, whether anything leads to them or not."""
        names = self._disk.names(f"{self._key}/manifests")
        return [name.removesuffix(".json") for name in names if is_digest(name[:-5])]

    def tag(self, tag: str, commit: str) -> str:
        """Make a tag name a commit, unless there is that tag already.

        Returns:
            The commit that the tag names.
        """
        key = f"{self._key}/refs/tags/{tag}"
        if self._disk.create(key, f"{commit}\n".encode()):
            return commit
        return self._commit_at(key) or commit

    def manifest_key(self, commit: str) -> str:
        """Where the manifest of a commit lies."""
        return f"{self._key}/manifests/{commit}.json"

    def _named(self, kind: str) -> list[str]:
        return [name for name in self._disk.names(f"{self._key}/refs/{kind}") if is_ref(name)]

    def _numbers(self, branch: str) -> list[int]:
        names = self._disk.names(f"{self._key}/refs/heads/{branch}")
        return [int(name) for name in names if _NUMBER.fullmatch(name)]

    def _entry(self, branch: str, number: int) -> str:
        return f"{self._key}/refs/heads/{branch}/{number:08d}"

    def _commit_at(self, key: str) -> str | None:
        data = self._disk.read(key, max_bytes=_MAX_REF_BYTES)
        if data is None:
            return None
        commit = data.decode("ascii", errors="replace").removesuffix("\n")
        if commit == _DELETED:
            return None
        if not is_digest(commit):
            raise HubIntegrityError(
                f"{self._disk.path(key)} does not hold a commit id.", hint=_RESTORE
            )
        return commit
