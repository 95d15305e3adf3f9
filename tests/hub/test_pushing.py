"""Adapters on their way to a hub and back: verified, proven, and never over something else."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import gatehub
import gatehub.hub.snapshot
from gatehub.adapter import Adapter
from gatehub.errors import (
    AdapterExistsError,
    AdapterFormatError,
    HubError,
    HubIntegrityError,
    HubNameError,
    HubWarning,
    RepositoryNotFoundError,
    UnexpectedFileError,
)
from gatehub.hub import list_adapters, list_revisions, plan_push, pull, push
from gatehub.hub.folder.hub import FolderHub
from tests.hub import plain
from tests.hub.plain import REPO, contents, digests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GATEHUB_HUB", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def blob(hub: Path, folder: Path, name: str = "gates.safetensors") -> Path:
    digest = digests(folder)[name].sha256
    return hub / "blobs" / digest[:2] / digest


def left(folder: Path) -> list[str]:
    """What lies in a folder but for the cache's own records."""
    return sorted({path.name for path in folder.iterdir()} - {".known", ".seen"})


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_an_adapter_goes_to_the_hub_and_back(
    hub: Path, adapter_folder: Path, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    result = push(adapter_folder, REPO, hub=hub, tag="v1")
    folder = pull(f"{REPO}@v1", hub=hub, out=tmp_path / "deep" / "out")

    assert result.created
    assert folder == tmp_path / "deep" / "out"
    assert contents(folder) == contents(adapter_folder)
    assert Adapter.load(folder).digest == tiny_adapter.digest
    assert os.listdir(folder.parent) == ["out"]


def test_the_top_of_the_package_offers_them(
    hub: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    gatehub.push(adapter_folder, REPO, hub=hub)

    folder = gatehub.pull(REPO, hub=hub)

    assert contents(folder) == contents(adapter_folder)
    assert [row.repo for row in gatehub.list_adapters(hub)] == [REPO]


def test_what_a_listing_shows_is_read_from_the_adapter(
    hub: Path, adapter_folder: Path, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    push(adapter_folder, REPO, hub=hub)
    bare = tiny_adapter.with_metrics({}).save(tmp_path / "bare")
    push(bare, "acme/bare", hub=hub, message="without figures")

    other, row = list_adapters(hub)

    assert (row.task, row.classes, row.backbone, row.gates) == ("birds", 3, "resnet18", "auto")
    assert row.accuracy == 0.5
    assert row.bytes == len(contents(adapter_folder)["gates.safetensors"])
    assert (other.repo, other.accuracy) == ("acme/bare", None)
    assert [entry.message for entry in list_revisions(REPO, hub)] == ["Push birds"]
    assert [entry.message for entry in list_revisions("acme/bare", hub)] == ["without figures"]


def test_the_optional_files_go_along(hub: Path, tiny_adapter: Adapter, tmp_path: Path) -> None:
    folder = tiny_adapter.save(
        tmp_path / "birds",
        attachments={"training.jsonl": b'{"epoch": 1}\n', "gates.png": b"picture"},
    )
    (folder / ".DS_Store").write_text("")

    push(folder, REPO, hub=hub)

    pulled = contents(pull(REPO, hub=hub))
    assert pulled["training.jsonl"] == b'{"epoch": 1}\n'
    assert pulled["gates.png"] == b"picture"
    assert ".DS_Store" not in pulled


def test_an_unsound_adapter_is_not_pushed(hub: Path, adapter_folder: Path, tmp_path: Path) -> None:
    (adapter_folder / "model.bin").write_bytes(b"")
    with pytest.raises(UnexpectedFileError, match=r"model\.bin"):
        push(adapter_folder, REPO, hub=hub)
    (adapter_folder / "model.bin").unlink()
    flip(adapter_folder / "gates.safetensors")
    with pytest.raises(AdapterFormatError):
        push(adapter_folder, REPO, hub=hub)
    with pytest.raises(AdapterFormatError, match="is not a folder"):
        push(tmp_path / "nothing", REPO, hub=hub)
    assert not hub.exists()


def test_an_adapter_that_changes_while_it_is_copied_is_not_pushed(
    hub: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its copy is half old and half new, while the folder is sound again."""
    copy = gatehub.hub.snapshot.digest_stream

    def copy_something_else(source: Any, target: Any, **limit: Any) -> Any:
        return copy(source if "config" in target.name else BytesIO(b"new"), target, **limit)

    monkeypatch.setattr(gatehub.hub.snapshot, "digest_stream", copy_something_else)

    with pytest.raises(HubError, match=r"birds changed while it was pushed"):
        push(adapter_folder, REPO, hub=hub)
    assert not hub.exists()


def test_a_flipped_bit_on_the_hub_never_arrives(
    hub: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    push(adapter_folder, REPO, hub=hub)
    flip(blob(hub, adapter_folder))
    (tmp_path / "place").mkdir()

    with pytest.raises(HubIntegrityError, match="does not hold the bytes that were pushed"):
        pull(REPO, hub=hub, out=tmp_path / "place" / "out")
    with pytest.raises(HubIntegrityError):
        pull(REPO, hub=hub)

    assert os.listdir(tmp_path / "place") == []
    push(adapter_folder, REPO, hub=hub)
    assert contents(pull(REPO, hub=hub)) == contents(adapter_folder)


def test_what_is_no_adapter_never_arrives(hub: Path, tmp_path: Path) -> None:
    folder = plain.write_folder(tmp_path / "plain", 1)
    plain.push(FolderHub(hub), folder)
    (tmp_path / "place").mkdir()

    with pytest.raises(AdapterFormatError):
        pull(REPO, hub=hub, out=tmp_path / "place" / "out")
    assert os.listdir(tmp_path / "place") == []


def test_files_that_no_adapter_has_are_named_and_left(
    hub: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    sound = contents(adapter_folder)
    (adapter_folder / "payload.bin").write_bytes(b"x")
    plain.push(FolderHub(hub), adapter_folder)
    told: list[str] = []

    folder = pull(REPO, hub=hub, out=tmp_path / "out", report=told.append)

    assert contents(folder) == sound
    assert told == [
        "acme/birds also holds 'payload.bin', a pickle, which can run code; it was not fetched."
    ]
    with pytest.warns(HubWarning, match=r"'payload\.bin', a pickle"):
        pull(REPO, hub=hub)


def test_a_hostile_manifest_writes_nothing_anywhere(
    hub: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    commit = push(adapter_folder, REPO, hub=hub).commit
    manifests = hub / "repos" / REPO / "manifests"
    record = json.loads((manifests / f"{commit}.json").read_bytes())
    record["files"]["../../escaped"] = record["files"]["README.md"]
    data = json.dumps(record).encode()
    hostile = hashlib.sha256(data).hexdigest()
    (manifests / f"{hostile}.json").write_bytes(data)
    (hub / "repos" / REPO / "refs" / "heads" / "main" / "00000002").write_text(f"{hostile}\n")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(HubIntegrityError, match="is not the name of a file"):
        pull(REPO, hub=hub, out=tmp_path / "a" / "b" / "out")

    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_adapter_may_be_there_already(
    hub: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    push(adapter_folder, REPO, hub=hub)
    out = pull(REPO, hub=hub, out=tmp_path / "out")
    (out / ".DS_Store").write_text("")
    number = out.stat().st_ino

    assert pull(REPO, hub=hub, out=str(out)) == out
    assert out.stat().st_ino == number
    assert (out / ".DS_Store").exists()


def test_an_empty_folder_may_be_there(hub: Path, adapter_folder: Path, tmp_path: Path) -> None:
    push(adapter_folder, REPO, hub=hub)
    (tmp_path / "out").mkdir()

    pull(REPO, hub=hub, out=tmp_path / "out")

    assert contents(tmp_path / "out") == contents(adapter_folder)


def make_other_file(out: Path) -> None:
    out.write_text("mine")


def make_other_folder(out: Path) -> None:
    out.mkdir()
    (out / "mine").write_text("mine")


def make_changed_adapter(out: Path) -> None:
    pull(REPO, hub=out.parent / "hub", out=out)
    (out / "README.md").write_text("mine")


def make_dangling_link(out: Path) -> None:
    out.symlink_to(out.parent / "nowhere")


def make_link_to_the_same(out: Path) -> None:
    out.symlink_to(pull(REPO, hub=out.parent / "hub", out=out.parent / "real"))


@pytest.mark.parametrize(
    "make",
    [
        make_other_file,
        make_other_folder,
        make_changed_adapter,
        make_dangling_link,
        make_link_to_the_same,
    ],
)
def test_nothing_is_overwritten(
    hub: Path, adapter_folder: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    push(adapter_folder, REPO, hub=hub)
    make(tmp_path / "out")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}

    with pytest.raises(AdapterExistsError, match=r"out' exists and is not acme/birds, and pulling"):
        pull(REPO, hub=hub, out=tmp_path / "out")

    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_the_cache_is_used_again(hub: Path, adapter_folder: Path, cache: Path) -> None:
    commit = push(adapter_folder, REPO, hub=hub).commit
    folder = pull(REPO, hub=hub)
    assert folder.parent.parent.parent.parent == cache
    assert folder.parts[-3:] == (*REPO.split("/"), commit)
    for path in (hub / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()

    assert pull(REPO, hub=hub) == folder
    assert contents(folder) == contents(adapter_folder)
    assert left(folder.parent) == [commit]


def lose_everything(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("a file")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(folder / "gates.safetensors"),
        lambda folder: (folder / "README.md").write_text("another card"),
        lambda folder: (folder / "README.md").unlink(),
        lose_everything,
    ],
)
def test_a_damaged_cache_is_fetched_again(
    hub: Path, adapter_folder: Path, damage: Callable[[Path], None]
) -> None:
    push(adapter_folder, REPO, hub=hub)
    folder = pull(REPO, hub=hub)
    damage(folder)

    assert pull(REPO, hub=hub) == folder
    assert contents(folder) == contents(adapter_folder)
    assert left(folder.parent) == [folder.name]


def test_a_damaged_cache_is_not_used_when_the_hub_is_damaged_too(
    hub: Path, adapter_folder: Path
) -> None:
    push(adapter_folder, REPO, hub=hub)
    folder = pull(REPO, hub=hub)
    flip(folder / "gates.safetensors")
    blob(hub, adapter_folder).unlink()

    with pytest.raises(HubIntegrityError, match="is missing from the hub"):
        pull(REPO, hub=hub)


@pytest.mark.parametrize("cached", [True, False])
def test_many_pulls_at_once_bring_one_folder(
    hub: Path, adapter_folder: Path, tmp_path: Path, cached: bool
) -> None:
    push(adapter_folder, REPO, hub=hub)
    barrier = Barrier(6)

    def pull_together(_: int) -> Path:
        barrier.wait()
        return pull(REPO, hub=hub, out=None if cached else tmp_path / "place" / "out")

    with ThreadPoolExecutor(6) as threads:
        (folder,) = set(threads.map(pull_together, range(6)))

    assert contents(folder) == contents(adapter_folder)
    assert left(folder.parent) == [folder.name]


def test_a_slower_pull_leaves_the_faster_one_in_its_place(
    hub: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(adapter_folder, REPO, hub=hub)
    fetch = FolderHub.fetch
    faster = []

    def be_overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(FolderHub, "fetch", fetch)
        faster.append(pull(REPO, hub=hub).stat().st_ino)
        fetch(*arguments)

    monkeypatch.setattr(FolderHub, "fetch", be_overtaken)

    assert [pull(REPO, hub=hub).stat().st_ino] == faster


def test_the_environment_names_the_hub(
    hub: Path, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_HUB", str(hub))

    commit = push(adapter_folder, REPO).commit

    assert pull(REPO).name == list_adapters()[0].commit == commit
    assert list_revisions(REPO)[0].commit == commit


def test_the_first_push_is_planned_where_there_is_no_hub_yet(
    hub: Path, adapter_folder: Path
) -> None:
    plan = plan_push(adapter_folder, REPO, hub=hub, tag="v1")
    assert (plan.parent, plan.added) == (None, tuple(sorted(contents(adapter_folder))))
    assert not hub.exists()


def test_names_are_checked_first(hub: Path, adapter_folder: Path, tmp_path: Path) -> None:
    for name in ("birds", "../birds", "acme/birds@", "acme/birds@../x"):
        with pytest.raises(HubNameError):
            pull(name, hub=hub)
    with pytest.raises(HubNameError, match="the revision is an argument of its own"):
        push(adapter_folder, "acme/birds@v1", hub=hub)
    assert not hub.exists()
    push(adapter_folder, REPO, hub=hub)
    with pytest.raises(RepositoryNotFoundError, match="has no acme/bees"):
        pull("acme/bees", hub=hub)


def test_what_the_system_refuses_is_a_sentence(
    hub: Path, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HubError, match=r"Pushing to acme/birds failed: Not a directory"):
        push(adapter_folder, REPO, hub=tmp_path / "file")
    push(adapter_folder, REPO, hub=hub)
    with pytest.raises(HubError, match=r"Pulling acme/birds failed: (Not a directory|File exists)"):
        pull(REPO, hub=hub, out=tmp_path / "file" / "out")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HubError, match=r"failed: No space left on device \(/.*\)\. Nothing half-"):
        pull(REPO, hub=hub, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
