"""What the test hub holds: repositories with a history, large files, users."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".pkl", ".png")
MAX_REGULAR_BYTES = 10_000_000
TOKEN = "hf_testhubsecrettoken0123456789"

_SECONDS = itertools.count()


@dataclass(frozen=True)
class Blob:
    """A file's bytes, and whether they lie beside git, as large files do."""

    data: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git itself stores of a large file."""
        return (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {len(self.data)}\n"
        ).encode()

    @property
    def oid(self) -> str:
        stored = self.pointer if self.is_large else self.data
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.oid


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    oid: str
    parent: str | None
    files: dict[str, Blob]
    title: str
    message: str
    date: str


@dataclass
class Repository:
    """One repository under its present name."""

    name: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        found = []
        commit = self.resolve(revision)
        while commit is not None:
            found.append(commit)
            commit = None if commit.parent is None else self.commits[commit.parent]
        return found

    def add(self, branch: str, files: dict[str, Blob], title: str, message: str = "") -> Commit:
        """Put a commit on top of a branch."""
        parent = self.branches.get(branch)
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=next(_SECONDS))
        date = moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        content = repr((parent, sorted((n, b.oid) for n, b in files.items()), title, message, date))
        oid = hashlib.sha1(content.encode()).hexdigest()
        commit = Commit(oid, parent, files, title, message, date)
        self.commits[oid] = commit
        self.branches[branch] = oid
        return commit


@dataclass
class State:
    """Everything there is.

    Attributes:
        users: token to the user's name and organisations.
        repositories: by name.
        moved: old name to new.
        large: large files by SHA-256.
        multipart_bytes: uploads over this size come in parts.
        asked: method and path of each request.
        files_url: where large files are downloaded.
    """

    users: dict[str, tuple[str, tuple[str, ...]]] = field(
        default_factory=lambda: {TOKEN: ("ada", ("acme",))}
    )
    repositories: dict[str, Repository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    multipart_bytes: int = 5_000_000
    asked: list[tuple[str, str]] = field(default_factory=list)
    files_url: str = ""

    def create(self, name: str, *, private: bool = False) -> Repository:
        repository = self.repositories[name] = Repository(name, private=private)
        self.moved.pop(name, None)
        repository.add("main", {".gitattributes": Blob(GIT_ATTRIBUTES, False)}, "initial commit")
        return repository

    def put(self, name: str, files: dict[str, bytes], *, branch: str = "main") -> Commit:
        """Commit files as somebody else than gatehub would."""
        repository = self.repositories.get(name) or self.create(name)
        head = repository.resolve(branch)
        blobs = {n: Blob(data, n.endswith(LFS_SUFFIXES)) for n, data in files.items()}
        self.large |= {blob.sha256: blob.data for blob in blobs.values() if blob.is_large}
        return repository.add(branch, {**(head.files if head else {}), **blobs}, "by hand")

    def move(self, old: str, new: str) -> None:
        repository = self.repositories.pop(old)
        repository.name = new
        self.repositories[new] = repository
        self.moved[old] = new
