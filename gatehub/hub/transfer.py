"""Adapters between a folder here and a hub: push, pull and list."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub.errors import AdapterExistsError, GatehubError, HubError, HubIntegrityError
from gatehub.hub._disk import sync_folder
from gatehub.hub.manifest import AdapterSummary, StoredFile, digest_file
from gatehub.hub.names import DEFAULT_BRANCH, check_repository, split_name
from gatehub.hub.store import ListedAdapter, ListedRevision, PushResult, open_hub

if TYPE_CHECKING:
    from gatehub.adapter.config import AdapterConfig


def push(
    folder: str | Path,
    repo: str,
    *,
    hub: str | Path | None = None,
    revision: str = DEFAULT_BRANCH,
    tag: str | None = None,
    message: str | None = None,
) -> PushResult:
    """Put an adapter folder on a hub, as one commit on top of a branch's head.

    The head is read first. If another push lands after that, this one is refused unless the
    content is the same; nothing is overwritten, so pushing again puts it on top. What the
    head holds already makes no new commit, so a push that was cut off is simply repeated.

    Args:
        folder: an adapter folder; it is verified before anything is sent.
        repo: `org/name`.
        hub: a folder's path or `file://` URL; None asks the environment's GATEHUB_HUB.
        revision: the branch, which need not exist yet.
        tag: a name for this content that will never move.
        message: what the history says of it.

    Raises:
        AdapterFormatError: the folder is not a sound adapter.
        HubNameError: a name that is not valid.
        HubConflictError: another push landed first, or the tag names another commit.
        HubError: the hub cannot be used.
    """
    # Loads torch, which nothing else in this package needs.
    from gatehub.adapter.files import ADAPTER_FILES, verify_adapter

    folder = Path(folder)
    store = open_hub(hub)
    check_repository(repo)
    with _told(f"Pushing to {repo}"):
        # Digests before verification: what the hub then takes is what was verified.
        paths = {name: folder / name for name in sorted(ADAPTER_FILES)}
        files = {name: digest_file(path) for name, path in paths.items() if path.is_file()}
        config = verify_adapter(folder)
        return store.push(
            folder,
            files,
            repo,
            revision=revision,
            tag=tag,
            message=f"Push {config.task}" if message is None else message,
            summary=_summarise(config),
        )


def pull(name: str, *, hub: str | Path | None = None, out: str | Path | None = None) -> Path:
    """Fetch an adapter from a hub, prove every byte of it, and return its folder.

    Args:
        name: `org/name[@revision]`, the revision a branch (by default `main`), a tag, a
            commit id or its unique beginning.
        hub: a folder's path or `file://` URL; None asks the environment's GATEHUB_HUB.
        out: the folder to make. None takes one in the cache (the environment's
            GATEHUB_CACHE, or ~/.cache/gatehub), which is proven anew on every use: read it,
            do not change it.

    Raises:
        RepositoryNotFoundError: no such repository.
        RevisionNotFoundError: no such revision, or an ambiguous one.
        HubIntegrityError: the hub's bytes are not the pushed ones. Nothing appears at `out`.
        AdapterFormatError: what was pushed is not a sound adapter. Nothing appears either.
        AdapterExistsError: something else is at `out`.
        HubError: the hub cannot be used.
    """
    from gatehub.adapter.files import ADAPTER_FILES, verify_adapter

    repo, revision = split_name(name)
    store = open_hub(hub)
    with _told(f"Pulling {name}"):
        commit = store.resolve(repo, revision)
        files = store.files(repo, commit)
        if unknown := sorted(files.keys() - set(ADAPTER_FILES)):
            raise HubIntegrityError(f"{name} holds {unknown[0]!r}, which no adapter has.")
        folder = _cache() / repo / commit if out is None else Path(out)
        if holds(folder, files):
            verify_adapter(folder)
            return folder
        if out is not None and _is_taken(folder):
            raise _exists(folder, name)
        with _staged(folder) as stage:
            for file in files:
                store.fetch(repo, commit, file, stage / file)
            sync_folder(stage)
            verify_adapter(stage)
            if out is None and not holds(folder, files):  # another pull may use a sound one
                _set_aside(folder, stage.parent / "old")
            try:
                os.rename(stage, folder)
            except OSError:
                # Something is there now; another pull may have brought the same.
                if not _is_taken(folder):
                    raise
                if not holds(folder, files):
                    raise _exists(folder, name) from None
            sync_folder(folder.parent)
    return folder


def list_adapters(hub: str | Path | None = None) -> list[ListedAdapter]:
    """Every adapter of a hub in its newest state, by name.

    Args:
        hub: a folder's path or `file://` URL; None asks the environment's GATEHUB_HUB.
    """
    with _told("Listing the hub"):
        return open_hub(hub).list_adapters()


def list_revisions(repo: str, hub: str | Path | None = None) -> list[ListedRevision]:
    """The history of one adapter: `main` first, each branch from its head backwards.

    Args:
        repo: `org/name`.
        hub: a folder's path or `file://` URL; None asks the environment's GATEHUB_HUB.

    Raises:
        RepositoryNotFoundError: no such repository.
    """
    with _told(f"Listing {repo}"):
        return open_hub(hub).list_revisions(repo)


def holds(folder: Path, files: Mapping[str, StoredFile]) -> bool:
    """Whether a folder holds exactly these files, each with exactly these bytes.

    Names that begin with a dot do not count: desktops leave such files wherever they look.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return False
        present = {name for name in os.listdir(folder) if not name.startswith(".")}
        return present == files.keys() and all(
            stat.S_ISREG((folder / name).lstat().st_mode) and digest_file(folder / name) == file
            for name, file in files.items()
        )
    except FileNotFoundError:
        return False


def _summarise(config: AdapterConfig) -> AdapterSummary:
    accuracy = config.metrics.get("accuracy")
    return AdapterSummary(
        task=config.task,
        classes=len(config.labels),
        backbone=config.backbone.name,
        gates=config.layout.policy,
        accuracy=None if accuracy is None else float(accuracy),
    )


def _cache() -> Path:
    return Path(os.environ.get("GATEHUB_CACHE") or "~/.cache/gatehub").expanduser().absolute()


def _is_taken(folder: Path) -> bool:
    """Whether something is there that a rename onto it could cost; an empty folder is nothing."""
    if not os.path.lexists(folder):
        return False
    return folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())


def _exists(folder: Path, name: str) -> AdapterExistsError:
    return AdapterExistsError(
        f"'{folder}' exists and is not {name}, and pulling overwrites nothing.",
        hint="Choose another folder, or move that one away.",
    )


def _set_aside(folder: Path, place: Path) -> None:
    with suppress(FileNotFoundError):
        os.rename(folder, place)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """A folder of the same name on the same file system, in one that is removed afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gatehub-") as place:
        stage = Path(place, folder.absolute().name)
        stage.mkdir()
        yield stage


@contextmanager
def _told(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses (full disk, no permission) into a sentence."""
    try:
        yield
    except GatehubError:  # some of them are OSErrors too
        raise
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise HubError(
            f"{doing} failed: {error.strerror or error}{where}.",
            hint="Nothing half-written is visible: put it right and run the same again.",
        ) from error
