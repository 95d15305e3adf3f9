"""Lock files that several processes write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gatehub.hub.guard
from gatehub.errors import HubError
from gatehub.hub import push
from gatehub.hub.files import StoredFile
from gatehub.hub.guard import guarded
from gatehub.hub.lock import Pin, add_pin, read_lock
from tests.source_tree import ROOT

NAMES = [f"acme/birds{number}" for number in range(12)]


def make_pin(repo: str) -> Pin:
    files = {"config.json": StoredFile(bytes=1, sha256="3f" * 32)}
    return Pin(hub="/hub", repo=repo, commit="3f" * 32, files=files)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes as POSIX does")
def test_parallel_pulls_with_one_lock_file_lose_no_pin(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    hub, lock = tmp_path / "hub", tmp_path / "gatehub.lock"
    commits = {name: push(adapter_folder, name, hub=hub).commit for name in NAMES}

    command = [sys.executable, "-m", "tests.hub.puller", str(hub), str(lock), *NAMES]
    subprocess.run(command, cwd=ROOT, check=True)

    assert {name: pin.commit for name, pin in read_lock(lock).items()} == commits
    assert {path.name for path in tmp_path.iterdir() if "lock" in path.name} == {"gatehub.lock"}


def test_threads_lose_no_pin(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "gatehub.lock"
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda name: add_pin(lock, name, make_pin(name)), NAMES))
    assert read_lock(lock) == {name: make_pin(name) for name in NAMES}


def test_a_link_stays_and_what_it_leads_to_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link = tmp_path / "deployment" / "gatehub.lock", tmp_path / "gatehub.lock"
    add_pin(real, "acme/bees", make_pin("acme/bees"))
    link.symlink_to(real)

    add_pin(link, "acme/birds", make_pin("acme/birds"))

    assert link.readlink() == real
    assert read_lock(real).keys() == {"acme/bees", "acme/birds"}
    monkeypatch.setattr(gatehub.hub.guard, "PATIENCE_S", 0.01)
    with guarded(real), pytest.raises(HubError, match="was busy"):  # one file, one guard
        add_pin(link, "acme/birds", make_pin("acme/birds"))


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_regular_file_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "gatehub.lock")
    with pytest.raises(HubError, match="is not a lock file of gatehub: it is not a regular file"):
        read_lock(tmp_path / "gatehub.lock")
