"""A folder is replaced whole or not at all: failing disks, crashes, readers and writers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gatehub.adapter import Adapter, _publish
from tests.adapter.sample import TENSORS, contents, make_sample
from tests.source_tree import ROOT


@pytest.fixture
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut needs, and most of the time that saving takes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_full_disk_leaves_the_old_adapter(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    folder = make_sample(task="old").save(tmp_path / "fruit")
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            make_sample(task="new").save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["fruit"]


@pytest.mark.usefixtures("_no_fsync")
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_two_renames_where_folders_cannot_be_exchanged(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_sample(task="old").save(tmp_path / "fruit")
    monkeypatch.setattr(_publish, "_swap", lambda one, other: False)
    renames, replace = 0, os.replace

    def fail(source: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == failing:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        make_sample(task="new").save(folder)
    assert Adapter.load(folder).task == ("new" if failing == 3 else "old")

    make_sample(task="newer").save(folder)
    assert Adapter.load(folder).task == "newer"
    hidden = [name for name in os.listdir(tmp_path) if name != "fruit"]
    assert len(hidden) == (failing == 3)  # what is out of the way already may stay there


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders in one step")
@pytest.mark.usefixtures("_no_fsync")
def test_there_is_an_adapter_at_every_moment(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit")
    stop = threading.Event()
    gaps = []

    def watch() -> None:
        while not stop.is_set():
            try:
                os.stat(folder / TENSORS)
            except FileNotFoundError as error:
                gaps.append(error)

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        for _ in range(50):
            make_sample().save(folder)
    finally:
        stop.set()
        reader.join()
    assert not gaps


@pytest.mark.usefixtures("_no_fsync")
def test_two_writers_at_once_leave_one_whole_adapter(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit")
    failures = []

    def save(task: str) -> None:
        try:
            for _ in range(20):
                make_sample(task=task).save(folder)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=save, args=(task,)) for task in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert Adapter.load(folder).task in ("one", "two")
    assert os.listdir(tmp_path) == ["fruit"]


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A folder of disturbed saves, and what became of each; see `crashing_saver`."""
    if sys.platform != "linux":
        pytest.skip("forks and kills, and only Linux exchanges two folders in one step")
    folder = tmp_path_factory.mktemp("crashes")
    program = [sys.executable, "-m", "tests.adapter.crashing_saver", str(folder)]
    done = subprocess.run(
        program, cwd=ROOT, check=True, timeout=120, stdout=subprocess.PIPE, text=True
    )
    return folder, json.loads(done.stdout)


def survivors(root: Path) -> list[str]:
    """The task of the adapter in each trial's folder, which must be whole."""
    return [Adapter.load(trial / "fruit").task for trial in sorted(root.iterdir())]


def test_killed_before_each_file_operation(
    crashes: tuple[Path, dict[str, list[str]]],
) -> None:
    folder, outcomes = crashes
    assert set(outcomes["killed"][:-1]) == {"killed"}
    tasks = survivors(folder / "killed")
    assert tasks == sorted(tasks, reverse=True)  # the old one, and from one operation on the new
    assert tasks.count("old") >= 6
    assert tasks.count("new") >= 2


def test_failed_at_each_file_operation(crashes: tuple[Path, dict[str, list[str]]]) -> None:
    folder, outcomes = crashes
    tasks = survivors(folder / "failed")
    assert tasks == sorted(tasks, reverse=True)
    assert tasks.count("old") >= 6
    for trial, task, outcome in zip(
        sorted((folder / "failed").iterdir()), tasks, outcomes["failed"], strict=True
    ):
        if task == "old":
            assert outcome == "raised"
            assert os.listdir(trial) == ["fruit"]


def test_killed_at_random_moments(crashes: tuple[Path, dict[str, list[str]]]) -> None:
    folder, outcomes = crashes
    assert "killed" in outcomes["random"]
    assert set(survivors(folder / "random")) <= {"old", "new"}
