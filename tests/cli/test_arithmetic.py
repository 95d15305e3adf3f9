"""gatehub compress and merge, as a user runs them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gatehub.adapter import Adapter, verify_adapter
from gatehub.backbone import load_backbone
from gatehub.gates.attach import attach_gates
from tests.cli.conftest import Gatehub

LABELS = ("cat", "dog")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tasks on the demo's backbone, and images of their labels."""
    folder = tmp_path_factory.mktemp("arithmetic")
    backbone = load_backbone("demo")
    for seed, task in enumerate(("pets", "zoo")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = attach_gates(backbone, labels=LABELS)
            with torch.no_grad():
                for tensor in model.task_tensors().values():
                    tensor.add_(0.02 * torch.randn_like(tensor))
        adapter = Adapter.from_model(model, task=task, metrics={"accuracy": 0.5})
        adapter.with_probe(backbone).save(folder / task)
    pixels = np.random.RandomState(0).randint(0, 256, (8, 32, 32, 3), np.uint8)
    for number, image in enumerate(pixels):
        place = folder / "photos" / LABELS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def count(folder: Path) -> int:
    return (folder / "gates.safetensors").stat().st_size


def test_one_form_is_made_as_told(gatehub: Gatehub, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    ran = gatehub("compress", made / "pets", "--dtype", "int8", "--out", out, "--format", "json")
    shown = ran.json
    assert (
        shown["bytes"] == count(out) < 0.6 * count(made / "pets") == 0.6 * shown["original_bytes"]
    )
    assert shown["kept"] == "int8"
    config = verify_adapter(out)
    assert config.metrics == {}  # those were of other gates
    assert config.probe is not None
    assert config.probe.dtype == "int8"
    assert "Its figures were left out" in ran.err
    card = gatehub("card", out, "--format", "json")
    assert card.json["valid"], card.err
    assert (out / "gates.png").is_file()


def test_the_smallest_that_is_good_enough_is_kept(
    gatehub: Gatehub, made: Path, tmp_path: Path
) -> None:
    out, picture = tmp_path / "small", tmp_path / "tradeoff.png"
    options = ("--dtype", "int8", "--dtype", "sign", "--rank", 1, "--max-drop", 0.99)
    shown = gatehub(
        *("compress", made / "pets", *options, "--data", made / "photos", "--workers", 0),
        *("--out", out, "--plot", picture, "--format", "json"),
    ).json
    names = [found["name"] for found in shown["candidates"]]
    assert names == ["rank 1, int8", "rank 1, sign"]
    sizes = {found["name"]: found["bytes"] for found in shown["candidates"]}
    assert shown["kept"] == min(names, key=sizes.__getitem__) == "rank 1, sign"
    assert shown["bytes"] == count(out) == sizes[shown["kept"]]
    assert shown["images"] == 8
    measured = gatehub("eval", out, "--data", made / "photos", "--workers", 0, "--format", "json")
    assert measured.json["accuracy"] == shown["accuracy"] == verify_adapter(out).metrics["accuracy"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_where_nothing_is_good_enough_the_table_says_so(
    gatehub: Gatehub, made: Path, tmp_path: Path
) -> None:
    """float32 is larger, so it cannot be kept whatever it answers."""
    options = ("--dtype", "float32", "--data", made / "photos", "--workers", 0)
    ran = gatehub("compress", made / "pets", *options, "--out", tmp_path / "small")
    assert ran.status == 1
    assert "Nothing was kept: none of them is smaller; expected at most 1 points of" in ran.err
    assert "as it was" in ran.err
    assert (tmp_path / "small.compress.png").is_file()
    assert not (tmp_path / "small").exists()
    assert "Hint: Choose a lower rank, a higher sparsity, or a dtype of fewer bits." in ran.err
    ran = gatehub("compress", made / "pets", "--dtype", "float32", "--out", tmp_path / "small")
    assert "With float32 it would take" in ran.err


def test_an_adapter_without_gates_has_nothing_to_compress(
    gatehub: Gatehub, made: Path, tmp_path: Path
) -> None:
    backbone = load_backbone("demo")
    model = attach_gates(backbone, labels=LABELS, gates="none")
    Adapter.from_model(model, task="bare").with_probe(backbone).save(tmp_path / "bare")
    ran = gatehub("compress", tmp_path / "bare", "--dtype", "int8", "--out", tmp_path / "small")
    assert ran.status == 1
    assert "Adapter 'bare' has no gates, and gates are what is compressed." in ran.err


def test_no_change_is_no_change(gatehub: Gatehub, made: Path, tmp_path: Path) -> None:
    options = ("--dtype", "int8", "--max-drop", 0.99, "--data")
    ran = gatehub("compress", made / "pets", *options, made / "photos", "--out", tmp_path / "small")
    assert "the same accuracy on 8 images" in " ".join(ran.out.split()), ran.out + ran.err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ((), 2, "give --rank, --sparsity or --dtype; or --data"),
        (("--rank", 1, "--rank", 2), 2, "these are 2 combinations; choosing one"),
        (("--dtype", "int8", "--max-drop", 0.1), 2, "--max-drop needs --data"),
        (("--dtype", "int8", "--plot", "a.png"), 2, "--plot needs --data"),
        (("--data", "{made}/photos", "--max-drop", 1), 2, "--max-drop is 1; a point is 0.01"),
        (("--sparsity", 90), 1, "A sparsity is 90.0; expected a share between 0 and 1"),
        (("--dtype", "int2"), 1, "not as 'int2'"),
        (("--data", "{made}/photos", "--out", "{made}/photos/small"), 1, "lies among the images"),
        (("--data", "{made}/photos", "--out", "."), 1, "'.' is the current folder"),
        (("--data", "{made}/photos", "--out", "~/small"), 1, "would be a folder called '~'"),
        (("--dtype", "int8", "--out", "{made}/pets"), 1, "is the adapter that is compressed"),
        (("--dtype", "int8", "--out", "{made}/zoo"), 1, "holds the adapter of task 'zoo'"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_lost(
    gatehub: Gatehub,
    made: Path,
    tmp_path: Path,
    options: tuple[object, ...],
    status: int,
    message: str,
) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    words = [str(word).format(made=made) for word in options]
    out = () if "--out" in words else ("--out", tmp_path / "small")
    ran = gatehub("compress", made / "pets", *words, *out, env={"COLUMNS": "200"})
    assert ran.status == status, ran.err
    assert message in " ".join(ran.err.split())
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "small").exists()


def test_two_tasks_become_one(gatehub: Gatehub, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    ran = gatehub(
        *("merge", made / "pets", made / "zoo", "--weights", "0.75,0.25"),
        *("--out", out, "--dtype", "int8", "--format", "json"),
    )
    assert ran.json["task"] == "pets-zoo"
    assert ran.json["labels"] == list(LABELS)
    assert ran.json["bytes"] == count(out)
    merged, pets, zoo = (Adapter.load(place) for place in (out, made / "pets", made / "zoo"))
    name = "bn1.weight" if "bn1.weight" in pets.tensors else "head.bias"
    expected = 0.75 * pets.tensors[name] + 0.25 * zoo.tensors[name]
    assert torch.allclose(merged.tensors[name], expected, atol=1e-6)
    assert "It has not been measured; gatehub eval" in ran.err
    ran = gatehub("eval", out, "--data", made / "photos", "--workers", 0)
    assert ran.status == 0, ran.err


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--weights", "a"), 2, "'a' is no list of numbers such as 0.7,0.3"),
        (("--weights", "1"), 1, "2 adapters are to be merged with 1 weights"),
        (("--task", "../x"), 1, "../x"),
        (("--out", "{made}/zoo", "--task", "zoo"), 1, "is one of the adapters that are merged"),
        (("--out", "{tmp}/third"), 1, "holds the adapter of task 'zoo'"),
    ],
)
def test_a_merge_that_cannot_be_is_refused(
    gatehub: Gatehub,
    made: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    shutil.copytree(made / "zoo", tmp_path / "third")
    words = [word.format(made=made, tmp=tmp_path) for word in options]
    out = () if "--out" in words else ("--out", tmp_path / "both")
    ran = gatehub("merge", made / "pets", made / "zoo", *words, *out, env={"COLUMNS": "200"})
    assert ran.status == status, ran.err
    assert message in " ".join(ran.err.split())
    assert not (tmp_path / "both").exists()
