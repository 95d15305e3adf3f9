"""What else may lie in an adapter's folder: left alone and named, refused, and never lost."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from gatehub._text import quote
from gatehub.adapter import ADAPTER_FILES, Adapter, files, verify_adapter
from gatehub.adapter.card_check import check_card, write_card
from gatehub.adapter.folder import check_place
from gatehub.errors import (
    AdapterExistsError,
    ExtraFilesWarning,
    MissingFileError,
    PointerFileError,
    UnexpectedFileError,
)
from tests.adapter.breaking import copy_golden
from tests.adapter.sample import CARD, CONFIG, GOLDEN, TENSORS, contents, make_sample

POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""


def write(path: Path) -> None:
    path.write_bytes(b"not read")


def make_folder(path: Path) -> None:
    path.mkdir()
    (path / "model.pt").write_bytes(b"not read")


def make_package(path: Path) -> None:
    path.mkdir()
    (path / "__init__.py").write_bytes(b"raise SystemExit")


def link_nowhere(path: Path) -> None:
    path.symlink_to("gone")


EXTRAS: list[tuple[str, Callable[[Path], None]]] = [
    *((name, write) for name in ("LICENSE", "NOTICE.txt", "Thumbs.db", "desktop.ini", "Icon\r")),
    *((name, write) for name in ("model.onnx", "old.safetensors", "config.json.bak", "e\u0301.md")),
    *((name, write) for name in ("\x1b[2J\u202e", "Readme.md ", "a" * 200)),
    *((name, make_folder) for name in ("@eaDir", "__MACOSX", "checkpoints")),
    ("link to nothing", link_nowhere),
    ("LICENSE", lambda path: path.symlink_to("/etc/hostname")),
    ("everything", lambda path: path.symlink_to("/")),
]
if hasattr(os, "mkfifo"):
    EXTRAS.append(("pipe", os.mkfifo))


@pytest.mark.parametrize(("name", "make"), EXTRAS)
def test_files_that_nobody_runs_are_left_alone_and_named(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copy_golden(tmp_path / "fruit")
    make(folder / name)
    for read in (Adapter.load, verify_adapter, check_card):
        with pytest.warns(ExtraFilesWarning, match=re.escape(quote(name, 80))) as caught:
            read(folder)
        assert str(caught[0].message).isprintable()
        assert len(str(caught[0].message)) < 300
    assert os.path.lexists(folder / name)
    with pytest.warns(ExtraFilesWarning):
        assert Adapter.load(folder).digest == Adapter.load(GOLDEN).digest


def test_of_many_files_some_are_named(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "fruit")
    for number in range(100):
        write(folder / f"note {number:02}")
    match = "holds 'note 00' and 'note 01' and 98 more, which no adapter has; it is left alone"
    with pytest.warns(ExtraFilesWarning, match=match):
        Adapter.load(folder)


@pytest.mark.parametrize("name", [".DS_Store", "._config.json", ".gitattributes", ".env.py"])
def test_hidden_files_are_passed_over(name: str, tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "fruit")
    write(folder / name)
    make_folder(folder / ".ipynb_checkpoints")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adapter.load(folder)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, write) for name in ("pytorch_model.bin", "model.PT", "optimizer.pkl", "x.tar")),
        *((name, write) for name in ("torch.py", "json.cpython-311-x86_64-linux-gnu.so", "c.pyd")),
        *((name, write) for name in ("libgates.so.1.2", "run.sh", "SETUP.EXE", "x.pyc")),
        ("torch", make_package),
        ("model.pt", make_folder),
        ("model.pkl", link_nowhere),
    ],
)
def test_what_may_run_is_refused(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "fruit")
    make(folder / name)
    match = (
        f"holds '{re.escape(name)}', which is not part of an adapter and may run .* move it away"
    )
    for read in (Adapter.load, verify_adapter):
        with pytest.raises(UnexpectedFileError, match=match):
            read(folder)


# Writing


@pytest.mark.parametrize(("name", "make"), [*EXTRAS, (".DS_Store", write), (".git", make_folder)])
def test_writing_an_adapter_loses_nothing_else(
    name: str, make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copy_golden(tmp_path / "fruit")
    make(folder / name)
    before, there = sorted(folder.iterdir()), (folder / name).lstat()
    with pytest.raises(AdapterExistsError, match=r"would be lost; it is left as it is\. Choose"):
        make_sample().save(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExtraFilesWarning)
        with pytest.raises(AdapterExistsError, match="would be lost"):
            files.attach_file(folder, "gates.png", b"picture")
        write_card(folder, license="mit")  # in place, so without the picture
        advice = " ".join(check_card(folder).advice)
    assert sorted(folder.iterdir()) == before
    assert (folder / name).lstat() == there
    assert os.listdir(tmp_path) == ["fruit"]
    assert f"no picture of its gates (--write draws it once {quote(name, 80)} lies elsewhere)" in (
        advice
    )


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        [CONFIG],
        [CONFIG, CARD],  # a repository of any other kind
        [CONFIG, TENSORS],
        [CONFIG, TENSORS, CARD, "model.onnx"],
        [CONFIG, TENSORS, CARD, ".git"],
    ],
)
def test_a_foreign_folder_is_left_as_it_is(names: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(AdapterExistsError, match=r"holds .*; it is left as it is"):
        make_sample().save(folder)
    assert contents(folder) == dict.fromkeys(names, b"mine")
    assert os.listdir(tmp_path) == ["mine"]


def test_a_folder_in_which_somebody_works_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stood in it would stand in one that is gone."""
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home):
        folder.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    for place, told in (
        (".", r"'\.' is the current folder; .* replaced as a whole\. Name a new folder"),
        ("", "is the current folder"),
        (here, "is the current folder"),
        ("../here", "is the current folder"),
        ("..", "is a folder above the current folder"),
        (home, "is your home folder"),
        ("/proc", "is where a file system is mounted"),
    ):
        with pytest.raises(AdapterExistsError, match=told):
            make_sample().save(place)
    assert Path.cwd() == here
    assert sorted(os.listdir(tmp_path)) == ["here", "home"]
    assert os.listdir(here) == []
    monkeypatch.chdir(make_sample().save("fruit"))
    for write in (
        lambda: make_sample().save("."),
        lambda: files.attach_file(Path(), "gates.png", b"picture"),
    ):
        with pytest.raises(AdapterExistsError, match="Change to another folder first"):
            write()
    write_card(".", license="mit")  # in place
    assert Adapter.load(".").task == "fruit"


def test_a_current_folder_that_is_gone_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Adapter.load(make_sample().save(tmp_path / "fruit")).task == "fruit"


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(GOLDEN / CARD)])
def test_what_bears_the_name_of_a_file_is_not_lost_either(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = copy_golden(tmp_path / "fruit")
    make(folder / "training.png")
    with pytest.raises(AdapterExistsError, match=r"holds 'training\.png', which would be lost"):
        check_place(folder)


# Pointers


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_a_clone_without_git_lfs_is_told_from_a_broken_file(name: str, tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "my fruit", attachments={"gates.png": b"picture"})
    (folder / name).write_bytes(POINTER)
    for read in (Adapter.load, verify_adapter, check_card):
        with pytest.raises(
            PointerFileError, match=f"'.*/my fruit/{name}' is a git-lfs pointer"
        ) as e:
            read(folder)
        assert e.value.hint == f"Run: git lfs install && git -C {shlex.quote(str(folder))} lfs pull"


def test_prose_about_pointers_is_no_pointer(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "fruit")
    for text in (
        b"# What is `version https://git-lfs.github.com/spec/v1`?",
        POINTER + b"x" * 2_000,
    ):
        (folder / CARD).write_bytes(text)
        Adapter.load(folder)


# Files that are taken for a folder


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        (
            "birds.onnx",
            b"",
            r"is an empty file, and no folder of an adapter\. Give a folder with c",
        ),
        ("birds.onnx", b"anything", "is an ONNX model, .* Give the adapter that it was exported f"),
        (
            "birds",
            b"\x08\x08\x12\x07pytorch",
            r"is an ONNX model, .* `gatehub verify` checks the f",
        ),
        ("best.pt", b"PK\x03\x04", "is a zip archive or a PyTorch checkpoint, and no folder"),
        ("best.pth", b"\x80\x02}q", "is a pickle, and no folder"),
        ("photo.jpg", b"\xff\xd8\xff\xe0", "is an image, and no folder"),
        ("old.safetensors", b"\x08\0\0\0\0\0\0\0{}", "is a safetensors file, and no folder"),
        ("config.json", b'{"task": 1}', r"is JSON, .* Give the folder that it lies in: '.*'\."),
        ("data.csv", "path,label\n\u00e9".encode(), "is text, and no folder"),
        ("data.csv", ("x" * 63 + "\u00e9").encode(), "is text, and no folder"),
        ("data", b"\xff\xfe\0", "is a file of another kind, and no folder"),
    ],
)
def test_a_file_in_a_folders_place_is_named(
    name: str, content: bytes, match: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MissingFileError, match=match):
        Adapter.load(tmp_path / name)


def test_what_cannot_be_opened_is_named_too(tmp_path: Path) -> None:
    for place, match in (
        (tmp_path / "gone", "is not a folder, so it is not an adapter"),
        (Path(os.devnull), "is a device or a pipe, and no folder"),
    ):
        with pytest.raises(MissingFileError, match=match):
            Adapter.load(place)


def test_an_export_into_its_adapter_leaves_it_one(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "fruit")
    shutil.copyfile(GOLDEN / TENSORS, folder / "model.onnx")
    with pytest.warns(ExtraFilesWarning, match=r"'model\.onnx', which no adapter has"):
        assert Adapter.load(folder).task == "fruit"
