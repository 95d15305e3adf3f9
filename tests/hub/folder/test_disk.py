"""The storage operations: whole or not at all, once or not at all, and never elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from gatehub.errors import HubError, HubIntegrityError
from gatehub.hub.files import StoredFile, digest_file
from gatehub.hub.folder.disk import Disk

posix = pytest.mark.skipif(os.name != "posix", reason="the file system of POSIX")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "hub")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(256)) * 8_000)  # more than one chunk
    return path


def files_under(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_what_was_created_is_read(disk: Disk) -> None:
    assert disk.read("a/b/c", max_bytes=10) is None
    assert disk.names("a") == []

    assert disk.create("a/b/c", b"first")

    assert disk.read("a/b/c", max_bytes=10) == b"first"
    assert disk.names("a") == ["b"]
    assert files_under(disk.root) == ["a/b/c"]


def test_create_leaves_what_is_there(disk: Disk) -> None:
    assert disk.create("key", b"first")
    assert not disk.create("key", b"second")

    assert disk.read("key", max_bytes=10) == b"first"
    assert files_under(disk.root) == ["key"]


def test_one_of_many_creates_wins(disk: Disk) -> None:
    barrier = Barrier(8)

    def create(worker: int) -> bool:
        barrier.wait()
        return disk.create("a/key", b"%d" % worker)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            won = list(threads.map(create, range(8)))
            assert won.count(True) == 1
            assert disk.read("a/key", max_bytes=10) == b"%d" % won.index(True)
            disk.path("a/key").unlink()


def test_put_and_get(disk: Disk, source: Path, tmp_path: Path) -> None:
    file = digest_file(source)

    disk.put("a/blob", source, file)
    disk.get("a/blob", tmp_path / "copy", file)

    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert files_under(disk.root) == ["a/blob"]


def test_put_leaves_sound_bytes_and_repairs_others(disk: Disk, source: Path) -> None:
    file = digest_file(source)
    disk.put("a/blob", source, file)
    blob = disk.path("a/blob")
    number = blob.stat().st_ino

    disk.put("a/blob", source, file)
    assert blob.stat().st_ino == number

    blob.write_bytes(b"damaged")
    disk.put("a/blob", source, file)
    assert blob.read_bytes() == source.read_bytes()


def test_put_refuses_a_source_that_changed(disk: Disk, source: Path) -> None:
    file = digest_file(source)
    source.write_bytes(b"something else")

    with pytest.raises(HubError, match=r"source changed while it was pushed\. Push it again"):
        disk.put("a/blob", source, file)

    assert files_under(disk.root) == []


@pytest.mark.parametrize("position", [0, 1_000_000, -1])
def test_get_notices_one_flipped_bit(
    disk: Disk, source: Path, tmp_path: Path, position: int
) -> None:
    file = digest_file(source)
    disk.put("a/blob", source, file)
    data = bytearray(source.read_bytes())
    data[position] ^= 1
    disk.path("a/blob").write_bytes(data)

    with pytest.raises(HubIntegrityError, match=r"blob does not hold the bytes that were pushed"):
        disk.get("a/blob", tmp_path / "copy", file)


def test_get_reads_no_more_than_was_announced(disk: Disk, source: Path, tmp_path: Path) -> None:
    disk.put("a/blob", source, digest_file(source))

    with pytest.raises(HubIntegrityError):
        disk.get("a/blob", tmp_path / "copy", StoredFile(bytes=10, sha256="0" * 64))

    assert (tmp_path / "copy").stat().st_size < source.stat().st_size


def test_get_names_what_is_missing(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(HubIntegrityError, match=r"blob is missing from the hub"):
        disk.get("a/blob", tmp_path / "copy", StoredFile(bytes=10, sha256="0" * 64))


def test_read_stops_at_its_limit(disk: Disk) -> None:
    disk.create("key", b"12345")

    assert disk.read("key", max_bytes=5) == b"12345"
    with pytest.raises(HubIntegrityError, match="key is over its limit of 4 bytes"):
        disk.read("key", max_bytes=4)


@pytest.mark.parametrize("key", ["", "..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/.b/c"])
def test_a_key_is_made_of_plain_names(disk: Disk, key: str) -> None:
    with pytest.raises(HubIntegrityError, match="could lead out of the hub"):
        disk.read(key, max_bytes=10)
    with pytest.raises(HubIntegrityError, match="could lead out of the hub"):
        disk.create(key, b"")


@posix
@pytest.mark.parametrize("link", ["a", "a/b", "a/b/key"])
def test_links_inside_the_hub_are_not_followed(disk: Disk, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    for secret in ("key", "b/key"):
        (outside / secret).write_bytes(b"secret")
    place = disk.root / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside / "key" if link.endswith("key") else outside)
    before = files_under(outside)

    uses: list[Callable[[], object]] = [
        lambda: disk.read("a/b/key", max_bytes=10),
        lambda: disk.create("a/b/key", b"mine"),
        lambda: disk.names("a/b/key"),
    ]
    if link != "a/b/key":
        uses.append(lambda: disk.create("a/b/other/key", b"mine"))
    for use in uses:
        with pytest.raises(HubIntegrityError, match="leads through a symbolic link"):
            use()

    assert files_under(outside) == before
    assert (outside / "key").read_bytes() == b"secret"


@posix
def test_a_hub_behind_a_link_is_a_hub(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    Disk(tmp_path / "link").create("key", b"here")

    assert (tmp_path / "real" / "key").read_bytes() == b"here"


@posix
def test_a_named_pipe_does_not_block(disk: Disk) -> None:
    disk.root.mkdir()
    os.mkfifo(disk.root / "key")

    with pytest.raises(HubIntegrityError, match="key is not a file"):
        disk.read("key", max_bytes=10)


def test_a_folder_is_not_a_file(disk: Disk) -> None:
    disk.create("a/key", b"")

    with pytest.raises(HubIntegrityError, match="a is not a file"):
        disk.read("a", max_bytes=10)
    assert disk.names("a/key") == []


@posix
def test_what_is_pushed_is_for_everybody_whom_the_umask_lets(disk: Disk, source: Path) -> None:
    before = os.umask(0o027)
    try:
        disk.create("a/key", b"")
        disk.put("a/blob", source, digest_file(source))
    finally:
        os.umask(before)

    modes = [stat.S_IMODE(disk.path(key).stat().st_mode) for key in ("a", "a/key", "a/blob")]
    assert modes == [0o750, 0o640, 0o640]


@posix
@pytest.mark.parametrize("operation", ["create", "put"])
def test_bytes_and_names_are_on_the_disk_before_it_returns(
    disk: Disk, source: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, int]] = []
    at_naming: list[list[tuple[int, int]]] = []
    fsync, link, replace = os.fsync, os.link, os.replace

    def identity(status: os.stat_result) -> tuple[int, int]:
        return status.st_dev, status.st_ino

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(identity(os.fstat(descriptor)))

    def watched_link(old: Any, new: Any) -> None:
        at_naming.append(list(synced))
        link(old, new)

    def watched_replace(old: Any, new: Any) -> None:
        at_naming.append(list(synced))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    monkeypatch.setattr(os, "replace", watched_replace)

    if operation == "create":
        disk.create("a/b/key", b"data")
    else:
        disk.put("a/b/key", source, digest_file(source))

    path = disk.path("a/b/key")
    assert at_naming == [[identity(path.stat())]]  # the bytes, before they get their name
    folders = [path.parent, path.parent.parent, disk.root, disk.root.parent]
    assert synced[1:] == [identity(folder.stat()) for folder in folders]


def test_a_lost_answer_of_a_network_drive_is_no_conflict(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_lose_the_answer(old: Any, new: Any) -> None:
        link(old, new)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)

    assert disk.create("key", b"mine")


def test_a_file_system_without_hard_links_is_named(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(old: Any, new: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(HubError, match="has no hard links"):
        disk.create("key", b"")
    assert files_under(disk.root) == []


@posix
def test_a_full_disk_leaves_nothing(
    disk: Disk, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        disk.put("a/blob", source, digest_file(source))
    assert files_under(disk.root) == []
