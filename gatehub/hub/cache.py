"""What was pulled before: proven folders, and which commit each name led to.

    HUB/ORG/NAME/COMMIT/                 an adapter's folder
    HUB/ORG/NAME/.known/COMMIT.json      size and SHA-256 of each of its files
    HUB/ORG/NAME/.seen/REVISION          the commit that a branch or tag named last

Two hubs never share a folder: what a strange one calls a commit proves nothing of another's.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from gatehub._disk import sync_file, sync_folder, write_whole
from gatehub._text import quote
from gatehub.hub.files import KnownFile, StoredFile, is_digest, looks_like, prove
from gatehub.hub.guard import guarded
from gatehub.hub.names import is_commit, is_component
from gatehub.hub.reports import warn

_KNOWN, _SEEN = ".known", ".seen"
_MAX_RECORD_BYTES = 100_000


def cache_root() -> Path:
    """The environment's GATEHUB_CACHE, or ~/.cache/gatehub."""
    return Path(os.environ.get("GATEHUB_CACHE") or "~/.cache/gatehub").expanduser().absolute()


class Cache:
    """The part of the cache that belongs to one hub.

    Args:
        key: the hub's name as a folder.
    """

    def __init__(self, key: str) -> None:
        self.root = cache_root() / key

    def folder(self, repo: str, commit: str) -> Path:
        """Where a commit's adapter lies, or would."""
        return self.root / repo / commit

    def copy(
        self, repo: str, commit: str, stage: Path, files: Mapping[str, KnownFile]
    ) -> dict[str, StoredFile] | None:
        """Copy what was pulled before, and prove the copy; None, and nothing, if it is not sound.

        Args:
            repo: `org/name`.
            commit: which commit of it.
            stage: an empty folder.
            files: what is to be there.
        """
        folder = self.folder(repo, commit)
        if not looks_like(folder, files):
            return None
        try:
            for name in files:
                shutil.copyfile(folder / name, stage / name)
                sync_file(stage / name)
            proven = prove(stage, files)
        except FileNotFoundError:  # another pull puts a sound one there
            proven = None
        if proven is None:
            for name in files:
                (stage / name).unlink(missing_ok=True)
        return proven

    def place(self, repo: str, commit: str, stage: Path, files: Mapping[str, StoredFile]) -> None:
        """Give a proven folder its place in the cache, in place of a damaged one.

        What is there already stays if it is sound: another pull may be using it. A folder with
        files that no pull has put there is kept beside it, and a `HubWarning` says where.

        Args:
            repo: `org/name`.
            commit: which commit of it.
            stage: the folder, beside which is room for the damaged one.
            files: what was proven of it.
        """
        folder = self.folder(repo, commit)
        with guarded(self.root / repo):  # or two would both see a damaged one, and take it away
            if prove(folder, files) is None:
                with suppress(FileNotFoundError):
                    _set_aside(folder, stage, files)
                os.rename(stage, folder)
                sync_folder(folder.parent)

    def remember(self, repo: str, commit: str, files: Mapping[str, StoredFile]) -> None:
        """Keep the digests of a folder that was just proven."""
        record = {name: asdict(files[name]) for name in sorted(files)}
        write_whole(self.root / repo / _KNOWN / f"{commit}.json", json.dumps(record).encode())

    def files(self, repo: str, commit: str) -> Mapping[str, StoredFile] | None:
        """The digests of a commit that was pulled before, None if it was not."""
        data = _read(self.root / repo / _KNOWN / f"{commit}.json")
        try:
            return None if data is None else parse_files(json.loads(data))
        except ValueError:
            return None

    def see(self, repo: str, revision: str, commit: str) -> None:
        """Note that a revision named a commit; that it cannot be noted does no harm."""
        path = self.root / repo / _SEEN / revision
        with suppress(OSError):
            if _read(path) != commit.encode():
                write_whole(path, commit.encode())

    def seen(self, repo: str, revision: str) -> str | None:
        """The commit that a revision named when it was last asked for."""
        if is_commit(revision):
            return revision
        commit = (_read(self.root / repo / _SEEN / revision) or b"").decode("ascii", "replace")
        return commit if is_commit(commit) else None


def _set_aside(folder: Path, stage: Path, files: Mapping[str, StoredFile]) -> None:
    """Move a folder to where it is removed with the stage, or to be kept if others use it, too."""
    others = sorted(set(os.listdir(folder)) - files.keys()) if folder.is_dir() else []
    if not others:
        os.rename(folder, stage.with_name(f"{stage.name}.old"))
        return
    kept = folder.with_name(f"{folder.name}.kept-{secrets.token_hex(4)}")
    os.rename(folder, kept)
    warn(
        f"The cache's folder {folder} had files that are not the adapter's "
        f"({quote(', '.join(others))}); they are in {kept} now."
    )


def cached_adapters() -> list[tuple[str, str, Path]]:
    """Hub, `org/name` and folder of every adapter in the cache."""
    return [
        (folder.parts[-4], "/".join(folder.parts[-3:-1]), folder)
        for folder in sorted(cache_root().glob("*/*/*/*"))
        if folder.is_dir() and is_commit(folder.name) and all(map(is_component, folder.parts[-4:]))
    ]


def parse_files(record: object) -> dict[str, StoredFile]:
    """Read file names with sizes and digests.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(record, dict) or not record:
        raise ValueError("no files")
    files = {}
    for name, entry in record.items():
        if not (is_component(name) and isinstance(entry, dict) and len(entry) == 2):
            raise ValueError(f"{name!r} is not a file's entry")
        size, digest = entry.get("bytes"), entry.get("sha256")
        if type(size) is not int or not isinstance(digest, str) or not is_digest(digest):
            raise ValueError(f"{name!r} has no size and SHA-256")
        files[name] = StoredFile(bytes=size, sha256=digest)
    return files


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
