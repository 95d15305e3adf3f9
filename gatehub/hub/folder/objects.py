"""A folder hub's storage in an object store, or whatever else fsspec knows.

One object appears whole or not at all in such stores. Exclusive creation is what a hub
stands on, and fsspec has a stand-in for it that looks first and writes after; a store that
has only that is refused for pushes.
"""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import threading
from contextlib import suppress
from datetime import datetime, timezone
from inspect import signature
from io import BytesIO
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from gatehub._huggingface.refusals import first_line, redact
from gatehub.errors import HubError
from gatehub.hub.files import MAX_FILE_BYTES, StoredFile, changed_meanwhile, digest_stream
from gatehub.hub.folder.outages import ask_twice, open_store, reaching
from gatehub.hub.folder.storage import check_bytes, check_key, check_length, missing
from gatehub.hub.names import is_component, not_a_hub

_PROBE = ".gatehub-probe-"
_IS_PROBE = re.compile(re.escape(_PROBE) + "[0-9a-f]{16}")
# The file system in memory looks whether a file is there and then creates it.
_MEMORY = threading.Lock()


class Objects:
    """Objects under one URL.

    Args:
        place: such as "s3://bucket/hub". How the store is reached, and by whom, is for its own
            environment (AWS_ENDPOINT_URL, AWS_PROFILE, …) or fsspec's configuration.

    Raises:
        HubError: fsspec does not know such a store, or a package for it is missing.
    """

    def __init__(self, place: str) -> None:
        try:
            self._fs, root = open_store(place)
        except ImportError as error:
            raise HubError(
                f"'{redact(place)}' needs a package that is not installed: {first_line(error)}.",
                hint="For s3://, pip install 'gatehub[s3]'.",
            ) from error
        except Exception as error:  # each store refuses a URL in a way of its own
            raise not_a_hub(place) from error
        self._root: str = root.rstrip("/")
        if not self._root.strip("/") or ".." in place.split("/"):
            raise not_a_hub(place)
        self._may_create: bool | None = None

    @property
    def where(self) -> str:
        """The URL."""
        return redact(str(self._fs.unstrip_protocol(self._root)))

    def exists(self) -> bool:
        """Whether any object is under the URL."""
        return bool(self.names(""))

    def url(self, key: str) -> str:
        """Where a key lies."""
        return redact(str(self._fs.unstrip_protocol(self.path(key))))

    def path(self, key: str) -> str:
        """Where a key lies, in the form that the store takes."""
        check_key(key, self.where)
        return f"{self._root}/{key}"

    def names(self, key: str) -> list[str]:
        """See `Storage.names`."""
        path = self.path(key) if key else self._root

        def ask() -> list[str]:
            self._fs.invalidate_cache()
            return list(self._fs.ls(path, detail=False))

        try:
            entries = ask_twice(self.where, ask)
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = {posixpath.basename(entry.rstrip("/")) for entry in entries}
        return sorted(name for name in found if is_component(name))

    def read(self, key: str, *, max_bytes: int) -> bytes | None:
        """See `Storage.read`."""
        path = self.path(key)
        try:
            data: bytes = ask_twice(
                self.where, lambda: self._fs.cat_file(path, start=0, end=max_bytes + 1)
            )
        except FileNotFoundError:
            return None
        return check_length(data, self.url(key), max_bytes)

    def create(self, key: str, data: bytes) -> bool:
        """See `Storage.create`."""
        self._check_creates()
        if self._create(self.path(key), data):
            return True
        # Ours after all, if the store did it and its answer was lost on the way.
        return self.read(key, max_bytes=len(data)) == data

    def put(self, key: str, source: Path, expected: StoredFile) -> None:
        """See `Storage.put`. The bytes are held in memory, as those of a loaded adapter are."""
        self._check_creates()
        if self.is_sound(key, expected) and self.age_s(key) < 3600:
            return  # else it is written anew, so that no collection takes it for garbage
        with source.open("rb") as file:
            data = file.read(expected.bytes + 1)
        if digest_stream(BytesIO(data)) != expected:
            raise changed_meanwhile(source)
        with reaching(self.where, writing=True):
            self._fs.pipe_file(self.path(key), data)

    def get(self, key: str, target: Path, expected: StoredFile) -> None:
        """See `Storage.get`."""
        data = self.read(key, max_bytes=min(expected.bytes, max(MAX_FILE_BYTES.values())))
        if data is None:
            raise missing(self.url(key))
        check_bytes(digest_stream(BytesIO(data)), expected, self.url(key))
        with target.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def is_sound(self, key: str, expected: StoredFile) -> bool:
        """See `Storage.is_sound`."""
        path = self.path(key)

        def ask() -> StoredFile:
            with self._fs.open(path, "rb") as file:
                return digest_stream(file, max_bytes=expected.bytes)

        try:
            return ask_twice(self.where, ask) == expected
        except FileNotFoundError:
            return False

    def has(self, key: str) -> bool:
        """See `Storage.has`."""
        path = self.path(key)

        def ask() -> bool:
            self._fs.invalidate_cache()
            return bool(self._fs.isfile(path))

        return ask_twice(self.where, ask)

    def age_s(self, key: str) -> float:
        """See `Storage.age_s`."""
        path = self.path(key)
        try:
            modified: datetime = ask_twice(self.where, lambda: self._fs.modified(path))
        except FileNotFoundError:
            return 0.0
        return _seconds_since(modified)

    def move(self, key: str, to: str) -> None:
        """See `Storage.move`. The copy is there before the original goes."""
        with reaching(self.where):
            try:
                self._fs.cp_file(self.path(key), self.path(to))
            except FileNotFoundError:
                return
        self.remove(key)

    def remove(self, key: str) -> None:
        """See `Storage.remove`."""
        with reaching(self.where):
            try:
                self._fs.rm_file(self.path(key))
            except FileNotFoundError:
                return

    def sweep(self, *, older_than_s: float) -> tuple[int, int]:
        """See `Storage.sweep`: probes, and on S3 uploads in parts, of pushes that were killed."""

        def ask() -> list[dict[str, Any]]:
            self._fs.invalidate_cache()
            return list(self._fs.ls(self._root, detail=True))

        count = size = 0
        for entry in ask_twice(self.where, ask):
            path = str(entry["name"])
            if _IS_PROBE.fullmatch(posixpath.basename(path)):
                with reaching(self.where):
                    if _seconds_since(self._fs.modified(path)) >= older_than_s:
                        self._fs.rm_file(path)
                        count, size = count + 1, size + int(entry["size"] or 0)
        return count + self._abort_uploads(older_than_s), size

    def _abort_uploads(self, older_than_s: float) -> int:
        """Give up uploads in parts (s3fs: from 100 MiB on) that nobody finishes; how many.

        They are no objects, and no listing shows them; but they are kept, and paid for.
        """
        if "s3" not in self._protocols():
            return 0
        bucket, _, folder = self._root.partition("/")
        count = 0
        with reaching(self.where), suppress(PermissionError):  # who may not list them leaves them
            found = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{folder}/")
            for upload in found.get("Uploads", []):
                if _seconds_since(upload["Initiated"]) >= older_than_s:
                    name = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self._fs.call_s3("abort_multipart_upload", Bucket=bucket, **name)
                    count += 1
        return count

    def _create(self, path: str, data: bytes) -> bool:
        with reaching(self.where, writing=True):
            try:
                if "memory" in self._protocols():
                    with _MEMORY:
                        self._fs.pipe_file(path, data, mode="create")
                else:
                    self._fs.pipe_file(path, data, mode="create")
            except FileExistsError:
                return False
        return True

    def _check_creates(self) -> None:
        """Refuse a store whose exclusive creation is none: pushes at once would be lost."""
        if self._may_create is None:
            self._may_create = _creates_exclusively(self._fs)
            if self._may_create:
                probe = f"{self._root}/{_PROBE}{secrets.token_hex(8)}"
                self._create(probe, b"1")
                self._may_create = not self._create(probe, b"2")
                with reaching(self.where):
                    self._fs.rm_file(probe)
        if not self._may_create:
            raise HubError(
                f"{self.where} cannot create an object only where there is none, so two pushes at "
                "once could not be told apart.",
                hint="Put the hub on S3, Google Cloud Storage or Azure, or in a folder.",
            )

    def _protocols(self) -> tuple[str, ...]:
        protocol = self._fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _creates_exclusively(fs: Any) -> bool:
    own = getattr(type(fs), "_pipe_file", None) or type(fs).pipe_file
    return own is not AbstractFileSystem.pipe_file and "mode" in signature(own).parameters


def _seconds_since(moment: datetime) -> float:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (datetime.now(timezone.utc) - moment).total_seconds())
