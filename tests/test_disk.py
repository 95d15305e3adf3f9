"""A folder is replaced whole or not at all: failing disks, crashes, readers and writers at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gatehub import _disk
from gatehub._disk import create_whole, remove_abandoned, replacing, staged, write_whole
from gatehub.adapter import Adapter
from tests.adapter.sample import TENSORS, contents, make_sample
from tests.source_tree import ROOT


@pytest.fixture
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut needs, and most of the time that saving takes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("size", [200, 100_000])  # the smaller one waits in a buffer
@pytest.mark.parametrize("write", [write_whole, create_whole])
def test_a_full_disk_is_named_and_stays_no_fuller(
    write: Callable[[Path, bytes], object], size: int, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write(tmp_path / "state", bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.filename == str(tmp_path)
    assert os.listdir(tmp_path) == []


def test_full_disk_leaves_the_old_adapter(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    folder = make_sample(task="old").save(tmp_path / "fruit")
    before = contents(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            make_sample(task="new").save(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.filename == str(tmp_path)
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["fruit"]


@pytest.mark.usefixtures("_no_fsync")
@pytest.mark.parametrize("failing", [1, 2])
def test_two_renames_where_folders_cannot_be_exchanged(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_sample(task="old").save(tmp_path / "fruit")
    monkeypatch.setattr(_disk, "_swap", lambda one, other: False)
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
    assert Adapter.load(folder).task == "old"

    make_sample(task="newer").save(folder)
    assert Adapter.load(folder).task == "newer"
    assert os.listdir(tmp_path) == ["fruit"]


@pytest.mark.usefixtures("_no_fsync")
def test_an_old_folder_that_cannot_come_back_is_kept_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_sample(task="old").save(tmp_path / "fruit")
    monkeypatch.setattr(_disk, "_swap", lambda one, other: False)
    replace = os.replace

    def fail(source: Path, target: Path) -> None:
        if Path(target) == folder:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output error"):
        make_sample(task="new").save(folder)

    (left,) = tmp_path.iterdir()
    assert Adapter.load(left).task == "old"


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


MAKING = ".gatehub-0123456789abcdef.tmp"


def leave_folder(parent: Path) -> Path:
    """What a process leaves that is killed while it makes a folder."""
    room = parent / MAKING
    (room / "fruit").mkdir(parents=True)
    (room / "fruit" / "half").write_bytes(b"1234")
    (room / ".gatehub-making").touch()
    return room


def test_what_a_killed_process_left_goes_with_the_next_that_writes_there(tmp_path: Path) -> None:
    leave_folder(tmp_path)
    with staged(tmp_path / "fruit") as stage:
        assert os.listdir(tmp_path) == [stage.parent.name]
    assert os.listdir(tmp_path) == []

    (tmp_path / MAKING).write_bytes(b"half")
    write_whole(tmp_path / "whole", b"1")
    assert os.listdir(tmp_path) == ["whole"]


def test_what_is_left_is_counted_and_may_have_to_be_old(tmp_path: Path) -> None:
    leave_folder(tmp_path)
    assert remove_abandoned(tmp_path, older_than_s=3600) == (0, 0)
    assert remove_abandoned(tmp_path) == (1, 4)
    assert remove_abandoned(tmp_path / "nowhere") == (0, 0)


def test_what_is_in_the_making_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    with staged(tmp_path / "fruit") as stage, replacing(tmp_path / "file") as stream:
        stream.write(b"12")
        assert remove_abandoned(tmp_path) == (0, 0)
        assert stage.is_dir()
    assert (tmp_path / "file").read_bytes() == b"12"


def test_nothing_without_the_mark_is_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    here = tmp_path / "here"
    here.mkdir()
    for name in (".gatehub-notes", ".gatehub-0123456789abcdef", ".gatehub-XYZ.tmp", MAKING):
        (here / name).mkdir()
        (here / name / "thesis").write_text("mine")
    linked = ".gatehub-00000000000000aa.tmp"
    (here / linked).symlink_to(elsewhere)
    marked_by_link = here / ".gatehub-00000000000000bb.tmp"
    marked_by_link.mkdir()
    (marked_by_link / ".gatehub-making").symlink_to(elsewhere)
    for path in here.rglob("*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    before = {path: path.lstat().st_size for path in here.rglob("*")}

    write_whole(here / "whole", b"1")
    with staged(here / "fruit"):
        pass

    (here / "whole").unlink()
    assert {path: path.lstat().st_size for path in here.rglob("*")} == before
    assert elsewhere.read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_who_is_taken_for_abandoned_before_the_lock_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, tried = _disk._claim, []

    def too_late(stream: _disk.BinaryIO) -> bool:
        tried.append(stream.name)
        if len(tried) in (1, 3):
            remove_abandoned(tmp_path)
        return claim(stream)

    monkeypatch.setattr(_disk, "_claim", too_late)
    write_whole(tmp_path / "file", b"1")
    with staged(tmp_path / "fruit") as stage:
        (stage / "x").touch()
    assert len(tried) == 4
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "below" / "file", b"old")

    def fail() -> None:
        with replacing(tmp_path / "below" / "file") as stream:
            stream.write(b"new")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert (tmp_path / "below" / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path / "below") == ["file"]


def test_of_many_who_create_a_file_one_does(tmp_path: Path) -> None:
    made = []

    def create(number: int) -> None:
        made.append((create_whole(tmp_path / "file", b"%d" % number), number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ((_, winner),) = [entry for entry in made if entry[0]]
    assert (tmp_path / "file").read_bytes() == b"%d" % winner
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_what_is_taken_for_abandoned_is_removed_before_anybody_else_can_lock_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker waits for the lock, and sees then that it is gone."""
    room = tmp_path / f".gatehub-{'0' * 16}.tmp"
    room.mkdir()
    mark = room / _disk._MARK
    mark.touch()
    free: list[bool] = []
    rmtree = shutil.rmtree

    def look(path: Path) -> None:
        with mark.open("rb") as stream:
            free.append(_disk._lock(stream) is not False)
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", look)
    assert _disk.remove_abandoned(tmp_path) == (1, 0)
    assert free == [False]
