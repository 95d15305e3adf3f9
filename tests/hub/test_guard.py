"""One at a time, among processes and among threads."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import pytest
from filelock import lock_descriptor

import gatehub.hub.guard
from gatehub.errors import HubError
from gatehub.hub.guard import guarded
from tests.source_tree import ROOT


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


def test_no_count_of_many_processes_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    command = [sys.executable, "-m", "tests.hub.counter", str(path), "40"]
    with ExitStack() as stack:
        counters = [
            stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for _ in range(6)
        ]
        for counter in counters:
            assert counter.stdout is not None
            assert counter.stdout.readline() == "ready\n"
        for counter in counters:
            assert counter.stdin is not None
            counter.stdin.close()
        assert [counter.wait() for counter in counters] == [0] * 6
    assert path.read_text() == "240"
    assert os.listdir(tmp_path) == ["count"]


def test_a_process_that_does_not_let_go_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatehub.hub.guard, "PATIENCE_S", 0.01)
    path = tmp_path / "new" / "file"
    with held(path):
        with pytest.raises(HubError, match=r"file' was busy for .*that process"), guarded(path):
            raise AssertionError("two at a time")
        with guarded(tmp_path / "new" / "another"):  # which is nobody's business
            pass
    with guarded(path):
        pass
    assert os.listdir(path.parent) == []


def test_a_file_that_was_removed_before_it_was_locked_guards_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_late(descriptor: int, *, blocking: bool) -> bool:
        monkeypatch.setattr(gatehub.hub.guard, "lock_descriptor", lock_descriptor)
        (tmp_path / ".file.guard").unlink()  # by who held it, and is done
        return lock_descriptor(descriptor, blocking=blocking)

    monkeypatch.setattr(gatehub.hub.guard, "lock_descriptor", lock_late)
    with guarded(tmp_path / "file"):
        assert os.listdir(tmp_path) == [".file.guard"]


def test_an_error_lets_go(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), guarded(tmp_path / "file"):
        raise OSError("full")
    with guarded(tmp_path / "file"):
        pass


def test_a_file_system_without_locks_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(gatehub.hub.guard, "lock_descriptor", refuse)
    with (
        pytest.raises(HubError, match=r"cannot be locked: No locks available\. Use a file system"),
        guarded(tmp_path / "file"),
    ):
        raise AssertionError("not guarded")
