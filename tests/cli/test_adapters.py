"""inspect, verify and the others on what is no adapter's folder, or more than one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Gatehub
from tests.hub.plain import contents

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "{file}"),
        ("predict", "{file}", "photo.png"),
        ("eval", "{file}", "--data", "sklearn:digits"),
        ("export", "{file}", "--out", "{folder}/out.onnx"),
        ("push", "{file}", "acme/birds", "--hub", "{folder}/hub"),
        ("card", "{file}"),
    ],
)
def test_an_exported_file_is_called_what_it_is(
    gatehub: Gatehub, command: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "birds.model"
    file.write_bytes(b"\x08\x08\x12\x07pytorch")
    ran = gatehub(*(word.format(file=file, folder=tmp_path) for word in command))
    assert ran.status == 1
    assert f"Error: '{file}' is an ONNX model, and no folder of an adapter." in ran.err
    assert "Hint: Give the adapter that it was exported from." in ran.err
    assert os.listdir(tmp_path) == ["birds.model"]


def test_verify_looks_at_the_content_and_not_at_the_name(gatehub: Gatehub, tmp_path: Path) -> None:
    file = tmp_path / "birds.model"
    file.write_bytes(b"\x08\x08\x12\x07pytorch")
    assert "is not a valid ONNX model" in gatehub("verify", file).err
    (tmp_path / "gates.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    ran = gatehub("verify", tmp_path / "gates.safetensors")
    assert "is a safetensors file, and no folder of an adapter." in ran.err
    assert f"Hint: Give the folder that it lies in: '{tmp_path}'." in ran.err


def test_other_files_are_named_once_and_not_pushed(
    gatehub: Gatehub, adapter_folder: Path, tmp_path: Path
) -> None:
    (adapter_folder / "LICENSE").write_text("mine")
    (adapter_folder / "private").symlink_to("/etc")
    sentence = f"'{adapter_folder}' also holds 'LICENSE' and 'private', which no adapter has; it"
    hub, out = tmp_path / "hub", tmp_path / "out"
    for command in (
        ("inspect", adapter_folder),
        ("verify", adapter_folder),
        ("card", adapter_folder, "--write"),
        ("push", adapter_folder, "acme/birds", "--hub", hub),
    ):
        ran = gatehub(*command)
        assert ran.status == 0, ran.err
        assert ran.err.count(sentence) == 1
    assert gatehub("pull", "acme/birds", "--hub", hub, "--out", out).status == 0
    assert contents(out).keys() == {"README.md", "config.json", "gates.safetensors"}
    size = gatehub("inspect", adapter_folder, "--format", "json").json["bytes"]
    assert size == sum(map(len, contents(out).values()))


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("push", "acme/b", "--hub", "hub")])
def test_a_clone_without_git_lfs_is_told_what_to_run(
    gatehub: Gatehub, adapter_folder: Path, command: tuple[str, ...]
) -> None:
    (adapter_folder / "gates.safetensors").write_bytes(POINTER)
    ran = gatehub(command[0], adapter_folder, *command[1:])
    assert ran.status == 1
    assert "gates.safetensors' is a git-lfs pointer and not the file itself" in ran.err
    assert f"Hint: Run: git lfs install && git -C {adapter_folder} lfs pull\n" in ran.err


def test_a_path_commands_no_terminal(gatehub: Gatehub, tmp_path: Path) -> None:
    for name in ("\x1b[2J", "\u202exyz", "\udce9"):
        ran = gatehub("inspect", tmp_path / name)
        assert ran.status == 1
        assert ran.err.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("bomb: &a [*a, *a]", 1, "holds an alias or anchor ('a') in line 3; expected what JSON"),
        ("x: !!set {y}", 1, "holds a tag"),
        ("x: .nan", 1, "holds a number that JSON does not have (.nan)"),
        ("x: 2024-01-01", 0, "holds a date in line 3 (1 such), which some programs read as text"),
    ],
)
def test_any_card_is_shown_with_a_sentence(
    gatehub: Gatehub, adapter_folder: Path, line: str, status: int, message: str
) -> None:
    card = adapter_folder / "README.md"
    card.write_text(card.read_text().replace("pipeline_tag", f"{line}\npipeline_tag"))
    for form in ("human", "json"):
        ran = gatehub("card", adapter_folder, "--format", form)
        assert ran.status == status
        assert message in ran.err
        assert line in ran.out or json.loads(ran.out)["valid"] == (status == 0)
