"""An adapter from a hub to a folder here: pull."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gatehub._arguments import checked
from gatehub._disk import is_taken, staged, sync_folder
from gatehub.errors import (
    AdapterError,
    AdapterExistsError,
    AdapterFormatError,
    HubError,
    HubIntegrityError,
    HubUnreachableError,
)
from gatehub.hub.cache import Cache
from gatehub.hub.files import (
    KnownFile,
    StoredFile,
    describe_others,
    digest_file,
    is_same,
    prove,
    select_files,
)
from gatehub.hub.lock import Pin, add_pin, read_lock
from gatehub.hub.names import is_commit, split_name
from gatehub.hub.opening import open_hub
from gatehub.hub.protocol import Hub
from gatehub.hub.reports import Report, reading, told, warn


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull brought.

    Attributes:
        name: as it was asked for.
        repo: what the repository is called now.
        commit: which commit of it.
        hub: where it is from.
        folder: the adapter.
        stale: the hub could not be asked, so a newer commit may exist.
    """

    name: str
    repo: str
    commit: str
    hub: str
    folder: Path
    stale: bool


@checked(HubError)
def pull(
    name: str,
    *,
    hub: str | Path | None = None,
    out: str | Path | None = None,
    lock: str | Path | None = None,
    update: bool = False,
    report: Report | None = None,
) -> Path:
    """Fetch an adapter from a hub, prove every byte of it, and return its folder.

    Args:
        name: `org/name[@revision]`, the revision a branch (by default `main`), a tag, a
            commit id or its unique beginning.
        hub: see `open_hub`.
        out: the folder to make. None takes one in the cache (the environment's
            GATEHUB_CACHE, or ~/.cache/gatehub), which is checked again on every use: read it,
            do not change it.
        lock: a file of pins. A name that it pins brings the pinned commit, bytes and all; one
            that it does not pin is added to it.
        update: ask the hub again, and renew the pin.
        report: told, in sentences, what the caller should know; None issues `HubWarning`.

    Raises:
        RepositoryNotFoundError: no such repository.
        RevisionNotFoundError: no such revision, or an ambiguous one.
        HubAccessError: the hub does not allow it.
        HubUnreachableError: the hub does not answer, and the cache does not have it.
        HubIntegrityError: the hub's bytes are not the pushed, or not the pinned ones. Nothing
            appears at `out`.
        AdapterFormatError: what was pushed is not a sound adapter. Nothing appears either.
        AdapterExistsError: something else is at `out`.
        HubError: the hub cannot be used.
    """
    return pull_adapter(name, hub=hub, out=out, lock=lock, update=update, report=report).folder


@checked(HubError)
def pull_adapter(
    name: str,
    *,
    hub: str | Path | None = None,
    out: str | Path | None = None,
    lock: str | Path | None = None,
    update: bool = False,
    report: Report | None = None,
) -> Pulled:
    """Do what `pull` does, and say what was brought."""
    split_name(name)
    pins = {} if lock is None else read_lock(Path(lock))
    pin = None if update else pins.get(name)
    if pin is not None and hub is None:
        # A file may name any host. It gets the user's token only if the environment names it, too.
        store = open_hub(pin.hub, trusted=pin.hub == open_hub().place)
    else:
        store = open_hub(hub)
    if pin is not None and pin.hub != store.place:
        raise HubError(
            f"'{lock}' pins {name} to {pin.hub}, not to {store.place}.",
            hint="Name that hub, or pull with --update to pin this one.",
        )
    with told(f"Pulling {name}"):
        pull = _Pull(store, name, report or warn, pin, pinning=lock is not None)
        pulled, files = pull.run(None if out is None else Path(out))
        if lock is not None and pin is None:
            new = Pin(hub=store.place, repo=pulled.repo, commit=pulled.commit, files=files)
            add_pin(Path(lock), name, new)
    return pulled


class _Pull:
    """One pull: find the commit, fetch what the cache does not have, and put it in its place."""

    def __init__(
        self, store: Hub, name: str, report: Report, pin: Pin | None, *, pinning: bool
    ) -> None:
        self._store = store
        self._name = name
        self._report = report
        self._pin = pin
        self._pinning = pinning
        self._cache = Cache(store.key)
        # The cache goes by the name that was asked for, which a moved repository answers to.
        self._repo, self._revision = split_name(name)
        if pin is not None:
            self._repo = pin.repo

    def run(self, out: Path | None) -> tuple[Pulled, Mapping[str, StoredFile]]:
        commit, stale = self._find()
        files = self._known(commit)
        folder = self._cache.folder(self._repo, commit) if out is None else out
        proven = prove(folder, files)
        if proven is not None:
            _verify(folder, proven)
        elif out is not None and is_taken(out):
            raise self._exists(out)
        else:
            proven = self._bring(folder, commit, files)
        if out is None:
            if self._cache.files(self._repo, commit) is None:
                self._cache.remember(self._repo, commit, proven)
            # A pin says nothing of where the branch or the tag is now.
            if not stale and self._pin is None:
                self._cache.see(self._repo, self._revision, commit)
        pulled = Pulled(
            name=self._name,
            repo=self._store.present_name(self._repo),
            commit=commit,
            hub=self._store.place,
            folder=folder,
            stale=stale,
        )
        return pulled, proven

    def _find(self) -> tuple[str, bool]:
        """The commit, and whether it may be an old one."""
        if self._pin is not None:
            return self._pin.commit, False
        if is_commit(self._revision) and self._cache.files(self._repo, self._revision.lower()):
            return self._revision.lower(), False
        try:
            with reading(self._store.place):
                commit = self._store.resolve(self._repo, self._revision)
        except HubUnreachableError as error:
            seen = self._cache.seen(self._repo, self._revision)
            if seen is None or self._cache.files(self._repo, seen) is None:
                error.message = f"{error.message} {self._name} is not in the cache either."
                raise
            if self._pinning:  # what may be old is never made a pin
                error.message = f"{error.message} {self._name} was not pinned."
                error.hint = "Pull again when the hub answers, or without the lock file."
                raise
            self._report(
                f"{error.message} Using {self._name} from the cache (commit {seen[:12]}), which "
                "may be stale."
            )
            return seen, True
        present = self._store.present_name(self._repo)
        if present != self._repo:
            self._report(f"{self._repo} is called {present} now.")
        return commit, False

    def _known(self, commit: str) -> Mapping[str, KnownFile]:
        """The adapter's files: as pinned, as proven before, or as the hub lists them."""
        if self._pin is not None:
            return self._pin.files
        known: Mapping[str, KnownFile] | None = self._cache.files(self._repo, commit)
        if known is not None:
            return known
        known, others = select_files(self._name, self._store.files(self._repo, commit))
        if others:
            self._report(describe_others(self._name, others))
        if not known:
            raise AdapterFormatError(
                f"{self._name} holds no adapter file.",
                hint=f"Is it an adapter of gatehub? See {self._store.place}/{self._repo}.",
            )
        return known

    def _bring(
        self, folder: Path, commit: str, files: Mapping[str, KnownFile]
    ) -> dict[str, StoredFile]:
        """Make the folder, and return what was proven of its files."""
        cached = self._cache.folder(self._repo, commit)
        with staged(folder) as stage:
            proven = None
            if folder != cached:
                proven = self._cache.copy(self._repo, commit, stage, files)
            if proven is None:
                proven = self._fetch(stage, commit, files)
            sync_folder(stage)
            try:
                _verify(stage, proven)
            except AdapterError as error:  # it names the stage, which is gone when it is read
                error.message = error.message.replace(str(stage), self._name)
                raise
            if folder == cached:
                self._cache.place(self._repo, commit, stage, proven)
            else:
                self._place(folder, stage, proven)
        return proven

    def _place(self, folder: Path, stage: Path, proven: Mapping[str, StoredFile]) -> None:
        try:
            os.rename(stage, folder)
        except OSError:
            # Something is there now; another pull may have brought the same.
            if not is_taken(folder):
                raise
            if prove(folder, proven) is None:
                raise self._exists(folder) from None
        sync_folder(folder.parent)

    def _fetch(
        self, stage: Path, commit: str, files: Mapping[str, KnownFile]
    ) -> dict[str, StoredFile]:
        """Fetch every file, and return what was proven of it on the way."""
        # A Hub lists what it likes, and a lock file may have been edited.
        listed = self._store.files(self._repo, commit)
        if files.keys() - listed.keys():
            raise self._changed(commit)
        proven = {}
        for name, known in files.items():
            there = listed[name]
            if there.bytes != known.bytes:
                raise self._changed(commit)
            self._store.fetch(self._repo, commit, name, stage / name)
            # What arrived is what is listed, or `fetch` has refused it.
            proven[name] = there if isinstance(there, StoredFile) else digest_file(stage / name)
            if known != there and not is_same(stage / name, known, proven[name]):
                raise self._changed(commit)
        return proven

    def _changed(self, commit: str) -> HubIntegrityError:
        before = "were pulled before" if self._pin is None else "the lock file pins"
        return HubIntegrityError(
            f"{self._store.place} has other files for commit {commit[:12]} of {self._repo} "
            f"than {before}; nothing was kept.",
            hint="Find out who changed it before you trust that hub again.",
        )

    def _exists(self, folder: Path) -> AdapterExistsError:
        return AdapterExistsError(
            f"'{folder}' exists and is not {self._name}, and pulling overwrites nothing.",
            hint="Choose another folder, or move that one away.",
        )


def _verify(folder: Path, proven: Mapping[str, StoredFile]) -> None:
    # Loads torch, which nothing else in this package needs.
    from gatehub.adapter.files import verify_adapter

    verify_adapter(folder, proven={name: file.sha256 for name, file in proven.items()})
