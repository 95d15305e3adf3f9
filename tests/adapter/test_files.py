"""The folder: what is refused of it, how it is written, and what a crash leaves of it."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter, files, verify_adapter
from gatehub.errors import (
    AdapterExistsError,
    AdapterFormatError,
    ConfigError,
    CorruptTensorsError,
    DigestMismatchError,
    MissingFileError,
    MissingTensorError,
    NonFiniteTensorError,
    TensorDtypeError,
    TensorShapeError,
    UnexpectedFileError,
    UnknownTensorError,
    UnsafeNameError,
)
from tests.adapter.breaking import (
    Broken,
    Change,
    assert_refused,
    assign,
    attach,
    config_text,
    copy_golden,
    drop,
    in_turn,
    instead,
    put,
    remove,
    resize,
)
from tests.adapter.sample import (
    CARD,
    CONFIG,
    GOLDEN,
    TENSORS,
    contents,
    make_sample,
    sample_tensors,
)

TEN_GIGABYTES = 10 * 2**30


def link(target: str) -> Change:
    return instead(CONFIG, lambda path: path.symlink_to(target))


def replace_by_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("an adapter, honestly")


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def take_tensors_of_another(folder: Path) -> None:
    tensors = {name: tensor + 1 for name, tensor in sample_tensors().items()}
    make_sample(tensors=tensors).save(folder.parent / "other")
    shutil.copy(folder.parent / "other" / TENSORS, folder)


BROKEN_FOLDERS = [
    Broken("no folder", shutil.rmtree, MissingFileError, "is not a folder"),
    Broken(
        "a file for the folder",
        replace_by_file,
        MissingFileError,
        "adapter' is text, and no folder of an adapter. Give a folder with config.json, gates.safe",
    ),
    Broken("an empty folder", empty, MissingFileError, "has no config.json"),
    *(
        broken
        for name in (CONFIG, TENSORS, CARD)
        for broken in (
            Broken(f"no {name}", remove(name), MissingFileError, f"has no {name}"),
            Broken(
                f"a folder for {name}",
                instead(name, Path.mkdir),
                MissingFileError,
                f"has no {name}",
            ),
        )
    ),
    Broken("a link to nothing", link("gone"), MissingFileError, "has no config.json"),
    Broken("a link to itself", link(CONFIG), MissingFileError, "has no config.json"),
    Broken("a link to a folder", link("."), MissingFileError, "has no config.json"),
    Broken("a link to a device", link(os.devnull), MissingFileError, "has no config.json"),
    Broken(
        "a pickle more",
        put("pytorch_model.bin", pickle.dumps({})),
        UnexpectedFileError,
        "holds 'pytorch_model.bin', which is not part of an adapter and may run when it is opened",
    ),
    Broken(
        "a name that no terminal should get",
        put("\x1b[2J\udce9.py", b""),
        UnexpectedFileError,
        re.escape(r"'\x1b[2J\xe9.py'"),
    ),
    Broken(
        "an unlisted attachment",
        put("training.png", b"picture"),
        UnexpectedFileError,
        "holds 'training.png', which its config does not list",
    ),
    Broken(
        "a listed attachment that is not there",
        attach(remove("training.png")),
        MissingFileError,
        "lacks 'training.png', which its config lists",
    ),
    Broken(
        "another attachment than the listed one",
        attach(put("training.png", b"Picture")),
        DigestMismatchError,
        r"training.png' has SHA-256 \w{12}…, but its config names \w{12}…",
    ),
    Broken(
        "a folder for an attachment",
        attach(instead("training.png", Path.mkdir)),
        UnexpectedFileError,
        "holds 'training.png', which is not a regular file",
    ),
    Broken(
        "an attachment of 10 GB",
        attach(resize("training.png", TEN_GIGABYTES)),
        UnexpectedFileError,
        "training.png' has 10,737,418,240 bytes; at most 67,108,864 are read",
    ),
    Broken(
        "tensors of 10 GB",
        resize(TENSORS, TEN_GIGABYTES),
        CorruptTensorsError,
        "is overlong: it has 10,737,418,240 bytes, and its tensors need 1,024",
    ),
    Broken(
        "a config of 4 MB and a byte",
        resize(CONFIG, 4_000_001),
        ConfigError,
        "config.json' has 4,000,001 bytes; at most 4,000,000 are read",
    ),
    Broken(
        "a card with a digest",
        assign("files", CARD, value="0" * 64),
        ConfigError,
        "lists a digest of 'README.md', which has none",
    ),
    Broken(
        "tensors without a digest",
        drop("files", TENSORS),
        ConfigError,
        "has no digest of gates.safetensors",
    ),
    Broken(
        "tensors of an adapter of the same form",
        take_tensors_of_another,
        DigestMismatchError,
        r"gates.safetensors' has SHA-256 \w{12}…, but its config names \w{12}…",
    ),
    Broken(
        "the digest of something else",
        assign("files", TENSORS, value="0" * 64),
        DigestMismatchError,
        "its config names 000000000000…",
    ),
    # The config and the tensor file agree, but the config does not agree with itself.
    Broken(
        "fewer labels than rows of the head",
        assign("labels", value=["apple"]),
        TensorShapeError,
        "no head tensor with one row for each of its 1 labels",
    ),
    Broken(
        "more labels than rows of the head",
        assign("labels", value=["apple", "pear", "fig"]),
        TensorShapeError,
        "no head tensor with one row for each of its 3 labels",
    ),
    Broken(
        "a gate of another kind",
        config_text('"kind": "full"', '"kind": "scale"'),
        MissingTensorError,
        "declares a gate but no tensor 'conv1.gate_a'",
    ),
    Broken(
        "a gate of another rank",
        config_text("lowrank:2", "lowrank:3"),
        TensorShapeError,
        r"'layer1.0.conv1.gate_a' as \[4, 2\]; its gate needs \[4, 3\]",
    ),
    Broken(
        "a gate of another shape",
        assign("gates", "sites", "conv1", "shape", value=[3, 2]),
        TensorShapeError,
        r"'conv1.gate' as \[2, 3\]; its gate needs \[3, 2\]",
    ),
    Broken(
        "a gate without its site",
        drop("gates", "sites", "layer1.0.conv2"),
        UnknownTensorError,
        "'layer1.0.conv2.gate_a', which is neither a gate",
    ),
    Broken(
        "a site without its gate",
        assign("gates", "sites", "conv9", value={"kind": "full", "shape": [1, 1]}),
        MissingTensorError,
        "declares a gate but no tensor 'conv9.gate'",
    ),
    Broken(
        "normalisation values in mode frozen",
        assign("norm", value="frozen"),
        UnknownTensorError,
        r"'bn1.weight', which is .* nor a normalisation value of mode 'frozen'",
    ),
    Broken(
        "normalisation statistics in mode affine",
        assign("norm", value="affine"),
        UnknownTensorError,
        "'bn1.running_mean', which is .* of mode 'affine'",
    ),
    Broken(
        "the kernel of a gated layer",
        assign("tensors", "conv1.weight", value={"dtype": "F32", "shape": [2, 3, 3, 3]}),
        UnknownTensorError,
        "'conv1.weight', which is neither a gate",
    ),
    Broken(
        "normalisation values of two lengths",
        assign("tensors", "bn1.running_var", "shape", value=[3]),
        TensorShapeError,
        r"'bn1.running_var' as \[3\], but another tensor of 'bn1' begins with \[2\]",
    ),
    Broken(
        "a normalisation value that is a matrix",
        assign("tensors", "bn1.weight", "shape", value=[2, 3]),
        TensorShapeError,
        r"'bn1.weight' as \[2, 3\]; a normalisation value has one dimension longer than 1",
    ),
    Broken(
        "a head of two lengths",
        assign("tensors", "head.bias", "shape", value=[3]),
        TensorShapeError,
        r"'head.bias' as \[3\], but another tensor of 'head' begins with \[2\]",
    ),
    Broken(
        "a normalisation value as float16",
        assign("tensors", "bn1.bias", "dtype", value="F16"),
        TensorDtypeError,
        "'bn1.bias' as F16, and its head as F32; expected one dtype for all",
    ),
    Broken(
        "a running variance as float16",
        assign("tensors", "bn1.running_var", "dtype", value="F16"),
        TensorDtypeError,
        "'bn1.running_var' as F16; expected F32",
    ),
    Broken(
        "a head as float16 in a version without them",
        assign("tensors", "head.bias", "dtype", value="F16"),
        ConfigError,
        "of format version 1, but its tensors are of version 4",
    ),
    Broken(
        "a head as bfloat16",
        in_turn(
            assign("format_version", value=4),
            assign("tensors", "head.weight", "dtype", value="BF16"),
        ),
        TensorDtypeError,
        "its head as BF16 and F32; expected one dtype for all",
    ),
    Broken(
        "no tensors at all",
        assign("tensors", value={}),
        MissingTensorError,
        "declares a gate but no tensor 'conv1.gate'",
    ),
    Broken(
        "more bytes of tensors than any machine has",
        assign("tensors", "head.weight", "shape", value=[2**24] * 4),
        ConfigError,
        "bytes of tensors; at most 2,147,483,648 are read",
    ),
]

if hasattr(os, "mkfifo"):  # opening a pipe to read it would wait for a writer for good
    BROKEN_FOLDERS += [
        Broken("a pipe for config", instead(CONFIG, os.mkfifo), MissingFileError, "has no config"),
        Broken("a pipe for gates", instead(TENSORS, os.mkfifo), MissingFileError, "has no gates"),
        Broken(
            "a pipe for an attachment",
            attach(instead("training.png", os.mkfifo)),
            UnexpectedFileError,
            "holds 'training.png', which is not a regular file",
        ),
    ]


@pytest.mark.parametrize("broken", BROKEN_FOLDERS, ids=str)
def test_broken_folder_is_refused(broken: Broken, tmp_path: Path) -> None:
    assert_refused(broken, tmp_path)


@pytest.mark.parametrize("name", ["a" * 5_000, "\udce9", ""])
def test_path_that_cannot_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(MissingFileError):
        Adapter.load(name)


def test_folder_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_golden(tmp_path / "adapter")

    def fail(path: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(AdapterFormatError, match="cannot be read: Permission denied") as caught:
        Adapter.load(folder)
    assert type(caught.value) is AdapterFormatError


@pytest.mark.parametrize("name", [TENSORS, CONFIG, "training.png"])
def test_ten_gigabytes_are_refused_without_being_read(name: str, tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "adapter")
    attach(resize(name, TEN_GIGABYTES))(folder)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterFormatError, match="10,737,418,240 bytes"):
            Adapter.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_tensors_of_ten_gigabytes_are_refused_even_if_they_are_declared(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "adapter")
    assign("tensors", "head.weight", "shape", value=[2, 5 * 2**18, 2**10])(folder)
    resize(TENSORS, TEN_GIGABYTES)(folder)
    with pytest.raises(ConfigError, match="bytes of tensors; at most 2,147,483,648"):
        Adapter.load(folder)


def test_links_to_files_hidden_files_and_an_edited_card_are_no_matter(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "adapter")
    instead(TENSORS, lambda path: path.symlink_to(GOLDEN / TENSORS))(folder)  # as in a hub's cache
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs")
    (folder / ".cache").mkdir()
    (folder / CARD).write_text("# Better words")
    assert Adapter.load(folder).config == Adapter.load(GOLDEN).config


# Saving


def test_golden_adapter_loads_to_the_known_values() -> None:
    adapter, expected = Adapter.load(GOLDEN), make_sample()
    assert list(adapter.tensors) == list(expected.tensors)
    for name, tensor in expected.tensors.items():
        assert adapter.tensors[name].dtype == torch.float32
        torch.testing.assert_close(adapter.tensors[name], tensor, rtol=0, atol=0)
    stored = adapter.config
    assert expected.config == stored.with_files(tensors={}, files={})


def test_saving_gives_the_golden_bytes(tmp_path: Path) -> None:
    golden = contents(GOLDEN)
    saved = contents(make_sample().save(tmp_path / "new"))
    again = contents(Adapter.load(GOLDEN).save(tmp_path / "again"))
    for name in (CONFIG, TENSORS):
        assert saved[name] == golden[name]
        assert again[name] == golden[name]


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "down" / "fruit"
    make_sample().save(folder, attachments={"training.jsonl": b"{}\n", "training.png": b"p"})
    assert verify_adapter(folder).files.keys() == {TENSORS, "training.jsonl", "training.png"}

    returned = make_sample(labels=("fig", "plum")).save(str(folder))

    assert returned == folder
    assert Adapter.load(folder).labels == ("fig", "plum")
    assert sorted(contents(folder)) == sorted((CONFIG, TENSORS, CARD))
    assert os.listdir(folder.parent) == ["fruit"]


def test_an_attachment_is_added_later(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit", attachments={"training.jsonl": b"{}\n"})
    before = contents(folder)

    config = files.attach_file(folder, "gates.png", b"picture")

    assert verify_adapter(folder) == config
    after = contents(folder)
    assert after.pop("gates.png") == b"picture"
    assert {name for name in before if before[name] != after[name]} == {CONFIG}
    together = {"training.jsonl": b"{}\n", "gates.png": b"picture"}
    at_once = make_sample().save(tmp_path / "at-once", attachments=together)
    assert contents(at_once)[CONFIG] == after[CONFIG]
    assert os.listdir(tmp_path) in (["fruit", "at-once"], ["at-once", "fruit"])


def test_an_attachment_costs_nothing_that_is_there(tmp_path: Path) -> None:
    folder = make_sample().save(tmp_path / "fruit")
    with pytest.raises(UnexpectedFileError, match="is not an attachment"):
        files.attach_file(folder, "notes.txt", b"")
    (folder / ".git").mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(AdapterExistsError, match=r"holds '\.git', which would be lost"):
        files.attach_file(folder, "gates.png", b"picture")
    assert sorted(folder.iterdir()) == before


def test_order_of_the_attachments_does_not_matter(tmp_path: Path) -> None:
    attached = {"training.png": b"p", "training.jsonl": b"{}\n"}
    one = make_sample().save(tmp_path / "one", attachments=attached)
    other = make_sample().save(tmp_path / "two", attachments=dict(reversed(attached.items())))
    assert contents(one) == contents(other)


@pytest.mark.parametrize("name", ["model.pt", "../training.png", CONFIG, TENSORS, ""])
def test_other_attachments_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnexpectedFileError, match="is not an attachment; expected one of training"):
        make_sample().save(tmp_path / "fruit", attachments={name: b""})
    assert not os.listdir(tmp_path)


def test_attachment_that_could_not_be_read_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_ATTACHMENT_BYTES", 3)
    make_sample().save(tmp_path / "fruit", attachments={"training.png": b"123"})
    with pytest.raises(UnexpectedFileError, match=r"'training.png' of 4 bytes .* at most 3 b"):
        make_sample().save(tmp_path / "fruit", attachments={"training.png": b"1234"})


def test_foreign_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(AdapterExistsError, match="is a file"):
        make_sample().save(tmp_path / "mine")
    assert contents(tmp_path) == {"mine": b"mine"}


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "fruit").mkdir()
    make_sample().save(tmp_path / "fruit")
    assert Adapter.load(tmp_path / "fruit").task == "fruit"


def test_saving_through_a_link_keeps_the_link(tmp_path: Path) -> None:
    make_sample(task="old").save(tmp_path / "v1")
    (tmp_path / "latest").symlink_to("v1")
    make_sample(task="new").save(tmp_path / "latest")
    assert Adapter.load(tmp_path / "v1").task == "new"
    assert sorted(os.listdir(tmp_path)) == ["latest", "v1"]


# Adapters that contradict themselves: saving them would write what loading refuses.
UNSOUND = [
    pytest.param({}, {"conv1.gate": None}, MissingTensorError, "no tensor 'conv1.gate'", id="gate"),
    pytest.param({"labels": ("a",)}, {}, TensorShapeError, "each of its 1 labels", id="labels"),
    pytest.param(
        {}, {"conv1.gate": torch.ones(3, 2)}, TensorShapeError, r"needs \[2, 3\]", id="shape"
    ),
    pytest.param({}, {"conv1.weight": torch.ones(2)}, UnknownTensorError, "neither", id="kernel"),
    pytest.param({}, {"head.x/y": torch.ones(2)}, UnsafeNameError, "'head.x/y'", id="name"),
    pytest.param({}, {"head.x": torch.ones(0)}, TensorShapeError, "no value", id="no values"),
    pytest.param({}, {"head.x": torch.ones(1, 1, 1, 1, 1)}, ConfigError, "up to 4", id="5 sizes"),
    pytest.param(
        {}, {"conv1.gate": torch.full((2, 3), torch.nan)}, NonFiniteTensorError, "NaN", id="NaN"
    ),
]


@pytest.mark.parametrize(("changes", "tensors", "error", "match"), UNSOUND)
def test_unsound_adapter_is_not_saved(
    changes: dict[str, object],
    tensors: dict[str, torch.Tensor | None],
    error: type[AdapterFormatError],
    match: str,
    tmp_path: Path,
) -> None:
    folder = make_sample().save(tmp_path / "fruit")
    before = contents(folder)
    merged = {**sample_tensors(), **tensors}
    kept = {name: tensor for name, tensor in merged.items() if tensor is not None}
    with pytest.raises(error, match=match):
        make_sample(tensors=kept, **changes).save(folder)
    assert contents(folder) == before
    assert os.listdir(tmp_path) == ["fruit"]


def test_config_that_could_not_be_read_again_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_CONFIG_BYTES", 1_000)
    with pytest.raises(ConfigError, match=r"The config for .* has .* bytes; at most 1,000"):
        make_sample().save(tmp_path / "fruit")
    assert not os.listdir(tmp_path)


def test_a_proven_digest_is_held_against_the_config(tmp_path: Path) -> None:
    folder = copy_golden(tmp_path / "sample")
    own = verify_adapter(folder).files
    assert verify_adapter(folder, proven=own).files == own
    assert verify_adapter(folder, proven={CONFIG: "0" * 64}).files == own  # it names the others
    with pytest.raises(DigestMismatchError, match="SHA-256 000000000000…, but its config names"):
        verify_adapter(folder, proven={TENSORS: "0" * 64})
