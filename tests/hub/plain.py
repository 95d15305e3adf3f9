"""Folders of plain bytes for the tests of a hub's storage, which does not look into files."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from gatehub.hub.files import StoredFile, digest_file
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.protocol import AdapterSummary, ListedAdapter, PushResult, Query

REPO = "acme/birds"
SUMMARY = AdapterSummary(
    task="birds", classes=2, backbone="resnet18.a1_in1k", gates="auto", accuracy=0.75
)


def write_folder(folder: Path, seed: int, *, size: int = 5_000) -> Path:
    """Three files: one of random bytes, one of a few that tell the seed, one always alike."""
    folder.mkdir(parents=True)
    (folder / "gates.safetensors").write_bytes(random.Random(seed).randbytes(size))
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    (folder / "README.md").write_text("# birds\n")
    return folder


def digests(folder: Path) -> dict[str, StoredFile]:
    return {path.name: digest_file(path) for path in folder.iterdir()}


def push(
    hub: FolderHub,
    folder: Path,
    repo: str = REPO,
    *,
    revision: str = "main",
    tag: str | None = None,
    message: str = "a push",
    summary: AdapterSummary = SUMMARY,
    files: Mapping[str, StoredFile] | None = None,
) -> PushResult:
    return hub.push(
        folder,
        digests(folder) if files is None else files,
        repo,
        revision=revision,
        tag=tag,
        message=message,
        summary=summary,
    )


def list_rows(hub: FolderHub) -> list[ListedAdapter]:
    """Every adapter; a repository that cannot be shown fails the test."""

    def refuse(sentence: str) -> None:
        raise AssertionError(sentence)

    return hub.list_adapters(Query(), refuse)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch(hub: FolderHub, commit: str, into: Path, repo: str = REPO) -> dict[str, bytes]:
    """Every file of a commit, through a folder that did not exist."""
    into.mkdir()
    for name in hub.files(repo, commit):
        hub.fetch(repo, commit, name, into / name)
    return contents(into)
