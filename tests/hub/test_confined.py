"""Full disks and read-only file systems, real ones: one sentence, exit 1, and nothing partial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatehub.adapter import Adapter
from gatehub.hub import pull, push
from tests.hub.confined import confine, find_obstacle
from tests.hub.plain import REPO, contents
from tests.hub.stores import place, serve_s3
from tests.hub_server.serve import TestHub

FULL, READ_ONLY = "No space left on device", "Read-only file system"


@pytest.fixture(scope="module", autouse=True)
def _mounts() -> None:
    if obstacle := find_obstacle():
        pytest.skip(obstacle)


@pytest.fixture
def folder(tiny_adapter: Adapter, tmp_path: Path) -> Path:
    log = b'{"epoch": 1}\n' * 20_000
    return tiny_adapter.save(tmp_path / "birds", attachments={"training.jsonl": log})


def check_refusal(ran: dict[str, Any], reason: str) -> None:
    assert (ran["status"], ran["out"]) == (1, ""), ran
    error, hint = ran["err"].splitlines()
    assert error.startswith("Error: ")
    assert reason in error
    assert hint.startswith("Hint: Nothing half-written is left in its place")


@pytest.fixture(params=["hub", "disk", "s3"])
def hub(
    request: pytest.FixtureRequest,
    test_hub: TestHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """A hub of each kind that another process can reach."""
    if request.param == "hub":
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        yield test_hub.url
    elif request.param == "disk":
        yield place("disk", tmp_path)
    else:
        with serve_s3(monkeypatch):
            yield place("s3", tmp_path)


def test_a_pull_onto_a_full_disk(hub: str, folder: Path, tmp_path: Path) -> None:
    push(folder, REPO, hub=hub)
    small = tmp_path / "small"
    command = ("pull", REPO, "--hub", hub, "--out", small / "deep" / "out")
    (refused,) = confine(command, small=(small,))
    check_refusal(refused, FULL)
    assert refused["left"] == {}


def test_a_pull_into_a_full_cache(
    hub: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(folder, REPO, hub=hub)
    small = tmp_path / "small"
    monkeypatch.setenv("GATEHUB_CACHE", str(small))
    (refused,) = confine(("pull", REPO, "--hub", hub), small=(small,))
    check_refusal(refused, FULL)
    assert refused["left"] == {}


@pytest.mark.slow
def test_a_push_to_a_full_disk_and_the_same_after_making_room(
    adapter_folder: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    filler, hub = small / "filler", small / "hub"
    command = ("push", adapter_folder, REPO, "--hub", hub)
    _, refused, _, verified, listed, _, pushed, again = confine(
        ("fill", filler),
        command,
        ("rm", filler),
        ("hub", "verify", hub),
        ("list", "--hub", hub, "--format", "json"),
        ("hub", "gc", hub, "--older-than-hours", 0),
        command,
        ("hub", "verify", hub),
        small=(small,),
    )
    check_refusal(refused, FULL)
    assert refused["left"].keys() == {str(filler)}
    assert verified["status"] in (0, 1)  # there may be no hub yet
    assert "acme" not in listed["out"]
    assert pushed["status"] == 0, pushed
    assert "all sound" in again["out"]
    assert not any(path.endswith(".tmp") for path in again["left"])


def test_where_paths_are_cut_before_a_push_is_full(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Adapter.load(folder)
    source = replace(adapter.backbone, source="file:/home/ada/r18.safetensors")
    log = {"training.jsonl": (folder / "training.jsonl").read_bytes()}
    cut = replace(adapter, config=replace(adapter.config, backbone=source))
    cut.save(tmp_path / "cut", attachments=log)
    small, hub = tmp_path / "small", tmp_path / "hub"
    monkeypatch.setenv("TMPDIR", str(small))
    (refused,) = confine(("push", tmp_path / "cut", REPO, "--hub", hub), small=(small,))
    check_refusal(refused, FULL)
    assert refused["left"] == {}
    assert not hub.exists()


def test_a_lock_file_that_does_not_fit(adapter_folder: Path, tmp_path: Path) -> None:
    hub, small = tmp_path / "hub", tmp_path / "small"
    push(adapter_folder, REPO, hub=hub)
    filler, lock = small / "filler", small / "gatehub.lock"
    command = ("pull", REPO, "--hub", hub, "--lock", lock, "--out", tmp_path / "out")
    _, refused, _, pulled = confine(
        ("fill", filler), command, ("rm", filler), command, small=(small,)
    )
    check_refusal(refused, FULL)
    assert refused["left"].keys() == {str(filler)}
    assert pulled["status"] == 0
    assert pulled["left"].keys() == {str(lock)}


@pytest.mark.slow
def test_a_cache_that_is_read_only(
    hub: str,
    adapter_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    push(adapter_folder, REPO, hub=hub)
    cache = tmp_path / "cache"
    monkeypatch.setenv("GATEHUB_CACHE", str(cache))
    cache.mkdir()
    pull_it = ("pull", REPO, "--hub", hub)
    out = ("--out", tmp_path / "out")
    cold, beside = confine(pull_it, (*pull_it, *out), readonly=(cache,))
    check_refusal(cold, READ_ONLY)
    assert list(cache.iterdir()) == []
    # Pulled to a place of its own it needs no cache.
    assert beside["status"] == 0, beside
    assert contents(tmp_path / "out") == contents(adapter_folder)

    folder = pull(REPO, hub=hub)
    warm, listed = confine((*pull_it, "--format", "quiet"), ("list",), readonly=(cache,))
    assert (warm["status"], warm["out"], warm["err"]) == (0, f"{folder}\n", "")
    assert REPO in listed["out"]


@pytest.mark.slow
def test_a_folder_hub_that_is_read_only(
    adapter_folder: Path, tiny_adapter: Adapter, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    push(adapter_folder, REPO, hub=hub)
    other = tiny_adapter.with_metrics({"accuracy": 0.1}).save(tmp_path / "other")
    before = sorted(hub.rglob("*"))
    pulled, verified, same, new = confine(
        ("pull", REPO, "--hub", hub, "--out", tmp_path / "out"),
        ("hub", "verify", hub),
        ("push", adapter_folder, REPO, "--hub", hub),
        ("push", other, REPO, "--hub", hub),
        readonly=(hub,),
    )
    assert pulled["status"] == 0, pulled
    assert "all sound" in verified["out"]
    check_refusal(same, READ_ONLY)
    check_refusal(new, READ_ONLY)
    assert sorted(hub.rglob("*")) == before
