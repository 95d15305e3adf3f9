"""What a push checks is what it sends, whatever takes its place in the folder meanwhile."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

import gatehub.adapter.files
from gatehub.errors import AdapterFormatError
from gatehub.hub import list_adapters, plan_push, pull, push
from gatehub.hub.files import MAX_FILE_BYTES, digest_file, open_regular
from gatehub.hub.snapshot import copied
from tests.hub.plain import REPO, contents, digests
from tests.hub_server.serve import TestHub

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such thing")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    return place


@pytest.fixture(params=["folder", "hub"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "hub")
    server: TestHub = request.getfixturevalue("test_hub")
    return server.url


def before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, do: Callable[[], None]) -> None:
    """Do something each time that a function is called."""
    inner = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        do()
        return inner(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def swap(folder: Path) -> None:
    """Put links to a private file in the place of an adapter's files."""
    secret = folder.parent / "id_rsa"
    secret.write_text("private")
    for name in MAX_FILE_BYTES:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)


@posix
@pytest.mark.parametrize("of", ["verify_adapter", "create_commit"])
def test_links_that_take_the_place_of_what_was_checked_are_not_sent(
    of: str, hub: str, adapter_folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = contents(adapter_folder)
    owner: Any = gatehub.adapter.files if of == "verify_adapter" else HfApi
    before(monkeypatch, owner, of, lambda: swap(adapter_folder))

    push(adapter_folder, REPO, hub=hub)

    assert contents(pull(REPO, hub=hub)) == sound
    assert os.listdir(temporary) == []


@posix
@pytest.mark.parametrize("name", ["README.md", "gates.safetensors"])
def test_a_link_that_comes_as_a_file_is_opened_is_not_followed(
    name: str, hub: str, adapter_folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = os.open

    def open_late(path: Any, *arguments: Any, **options: Any) -> int:
        if path == name:
            swap(adapter_folder)
        return inner(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_late)
    monkeypatch.setattr(os, "supports_dir_fd", {open_late})
    with pytest.raises(AdapterFormatError, match=f"{name}' is not a regular file"):
        push(adapter_folder, REPO, hub=hub)

    assert list_adapters(hub) == [] if hub.startswith("http") else not os.path.exists(hub)
    assert os.listdir(temporary) == []


@posix
def test_all_files_are_of_one_folder(
    adapter_folder: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, other = contents(adapter_folder), adapter_folder.with_name("other")
    inner = os.open

    def open_late(path: Any, *arguments: Any, **options: Any) -> int:
        if path == "README.md":
            adapter_folder.rename(adapter_folder.with_name("moved"))
            other.mkdir()
            (other / path).write_text("private")
            adapter_folder.symlink_to(other)
        return inner(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_late)
    monkeypatch.setattr(os, "supports_dir_fd", {open_late})
    with copied(adapter_folder) as (copy, files):
        assert contents(copy) == sound
        assert files == digests(copy)


@posix
def test_nobody_else_can_look_into_the_copy(adapter_folder: Path, temporary: Path) -> None:
    (adapter_folder / "notes.txt").write_text("mine")
    umask = os.umask(0)
    try:
        with copied(adapter_folder) as (copy, files):
            (room,) = temporary.iterdir()
            assert stat.S_IMODE(room.stat().st_mode) == 0o700
            assert room in copy.parents
            assert contents(copy).keys() == files.keys()
            assert files.keys() == contents(adapter_folder).keys() - {"notes.txt"}
    finally:
        os.umask(umask)
    assert os.listdir(temporary) == []


def test_a_plan_leaves_nothing_behind(hub: str, adapter_folder: Path, temporary: Path) -> None:
    plan_push(adapter_folder, REPO, hub=hub)
    (adapter_folder / "README.md").write_bytes(bytes(MAX_FILE_BYTES["README.md"] + 1))
    with pytest.raises(AdapterFormatError, match=r"'.*birds/README\.md' has 1,000,001 bytes; a hu"):
        plan_push(adapter_folder, REPO, hub=hub)
    assert os.listdir(temporary) == []


def test_what_is_wrong_is_said_of_the_folder_itself(adapter_folder: Path, temporary: Path) -> None:
    gates = adapter_folder / "gates.safetensors"
    gates.write_bytes(gates.read_bytes()[:-1])
    with pytest.raises(AdapterFormatError) as refused:
        plan_push(adapter_folder, REPO, hub=temporary / "hub")
    assert f"'{gates}' is truncated" in str(refused.value)


@posix
@pytest.mark.parametrize("windows", [True, False])
def test_only_regular_files_are_opened(
    windows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows has neither O_NOFOLLOW nor files that are found from a folder's descriptor."""
    if windows:
        monkeypatch.delattr(os, "O_NOFOLLOW")
        monkeypatch.setattr(os, "supports_dir_fd", set())
    file = tmp_path / "file"
    file.write_text("private")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")

    stream = open_regular(file)
    assert stream is not None
    with stream:
        assert stream.read() == b"private"
    for name in ("link", "dangling", "pipe", "."):
        assert open_regular(tmp_path / name) is None
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")

    (tmp_path / "README.md").symlink_to(file)
    with pytest.raises(AdapterFormatError, match="is not a regular file"), copied(tmp_path):
        pass
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").write_text("mine")
    with copied(tmp_path) as (copy, files):
        assert files == {"README.md": digest_file(copy / "README.md")}
