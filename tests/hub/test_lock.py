"""Lock files that several processes write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from filelock import FileLock

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


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another thread holds the guard."""
    holds, done = Event(), Event()

    def hold() -> None:
        with guarded(path):
            holds.set()
            done.wait()

    with ThreadPoolExecutor(1) as thread:
        holder = thread.submit(hold)
        holds.wait()
        try:
            yield
        finally:
            done.set()
            holder.result()


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


def test_threads_lose_no_pin(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "gatehub.lock"
    with ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda name: add_pin(lock, name, make_pin(name)), NAMES))
    assert read_lock(lock) == {name: make_pin(name) for name in NAMES}


def test_a_process_that_does_not_let_go_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatehub.hub.guard, "PATIENCE_S", 0.01)
    lock = tmp_path / "gatehub.lock"
    with held(lock), pytest.raises(HubError, match=r"gatehub\.lock' was busy for .*that process"):
        add_pin(lock, "acme/bees", make_pin("acme/bees"))
    add_pin(lock, "acme/bees", make_pin("acme/bees"))


def test_a_file_system_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FileLock) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(HubError, match=r"file system does not lock files\..*on another"):
        add_pin(tmp_path / "gatehub.lock", "acme/bees", make_pin("acme/bees"))


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    real, link = tmp_path / "deployment" / "gatehub.lock", tmp_path / "gatehub.lock"
    add_pin(real, "acme/bees", make_pin("acme/bees"))
    link.symlink_to(real)

    add_pin(link, "acme/birds", make_pin("acme/birds"))

    assert link.readlink() == real
    assert read_lock(real).keys() == {"acme/bees", "acme/birds"}
    assert not (tmp_path / ".gatehub.lock.guard").exists()  # one file, one guard


@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir)])
def test_what_is_no_regular_file_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "gatehub.lock")
    with pytest.raises(HubError, match="is not a lock file of gatehub: it is no regular file"):
        read_lock(tmp_path / "gatehub.lock")
