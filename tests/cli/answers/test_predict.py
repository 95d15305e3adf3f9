"""predict: whatever names images, as a stream, in every form, with one adapter or several."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.cli.answers._pictures import count_images, find_images
from gatehub.runtime.engine import Engine
from tests.cli.answers.conftest import save_adapter
from tests.cli.conftest import Gatehub, Ran


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images: in the folder, below it, and one whose name is a glob."""
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("1.png", "2.png", "[3].png", "deep/4.png", "deep/er/5.png", "z.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def names(ran: Ran, folder: Path) -> list[str]:
    return [os.path.relpath(answer["image"], folder) for answer in json.loads(ran.out)["images"]]


EVERY = ["1.png", "2.png", "[3].png", "deep/4.png", "deep/er/5.png", "z.png"]


def find(folder: Path, *given: object) -> list[str]:
    found = list(find_images([str(name) for name in given]))
    assert all(error is None for _, error in found)
    return [os.path.relpath(path, folder) for path, _ in found]


def test_images_are_named_in_many_ways(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(photos, photos) == find(photos, f"{photos}/") == EVERY
    assert find(photos, photos / "z.png", photos / "1.png") == ["z.png", "1.png"]
    assert find(photos, photos / "[3].png") == ["[3].png"]
    assert find(photos, f"{photos}/?.png") == ["1.png", "2.png", "z.png"]
    assert find(photos, f"{photos}/**/[45].png") == ["deep/4.png", "deep/er/5.png"]
    monkeypatch.chdir(photos)
    assert [path for path, _ in find_images(["."])] == [f"./{name}" for name in EVERY]
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "__MACOSX").mkdir()
    (photos / "__MACOSX" / "1.png").write_bytes(b"")
    assert find(photos, photos) == EVERY


def test_standard_input_names_images(gatehub: Gatehub, adapter: Path, photos: Path) -> None:
    lines = f"{photos}/2.png\r\n\n{photos}/deep\n".encode()
    given = ("-", "--format", "json")
    assert names(gatehub("predict", adapter, *given, stdin=lines), photos) == ["2.png", *EVERY[3:5]]


def test_what_a_folder_holds_besides_is_said(gatehub: Gatehub, adapter: Path, photos: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    ran = gatehub("predict", adapter, photos, "--format", "json")
    assert names(ran, photos) == EVERY
    assert re.search(r"\(1: \.txt 1\), not an image that can be decoded: notes\.txt", ran.err)


def test_paths_that_are_no_text_are_escaped(
    gatehub: Gatehub, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"\xff.png")
    (photos / "1.png").rename(photos / odd)
    for out in (tmp_path / "answers.csv", tmp_path / "answers.jsonl"):
        given = os.fsencode(photos / odd)
        ran = gatehub("predict", adapter, "-", "--out", out, "--format", "json", stdin=given)
        assert ran.json["failures"] == 0
        assert "\\udcff.png" in out.read_text("utf-8")


def test_images_are_looked_for_as_they_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lines(io.BytesIO):
        taken = 0

        def __next__(self) -> bytes:
            self.taken += 1
            return b"%d.png\n" % self.taken

    stream = io.TextIOWrapper(lines := Lines())
    monkeypatch.setattr(sys, "stdin", stream)
    endless = find_images(["-"])
    assert [next(endless)[0] for _ in range(3)] == ["1.png", "2.png", "3.png"]
    assert lines.taken == 3
    assert count_images(["-"]) is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("none.png", "'none.png' does not exist"),
        ("*.none", "'*.none' matches no file"),
        ("empty", "'empty' holds no images"),
        ("a\0b.png", "a\\x00b.png"),
    ],
)
def test_what_names_no_image_is_said(
    gatehub: Gatehub,
    adapter: Path,
    photos: Path,
    given: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(photos)
    (photos / "empty").mkdir()
    ran = gatehub("predict", adapter, "--data", given, "--data", "1.png", "--format", "json")
    assert ran.status == 1
    bad, good = json.loads(ran.out)["images"]
    assert sentence in bad["error"]
    assert good["image"] == "1.png"
    assert sentence in ran.err


def test_nothing_to_answer_is_an_error(gatehub: Gatehub, adapter: Path) -> None:
    ran = gatehub("predict", adapter, "-", "--format", "json")
    assert (ran.status, ran.out) == (1, "")
    assert "Standard input names no image" in ran.err
    assert gatehub("predict", adapter).status == 2


def test_answers_are_given_though_some_files_are_bad(
    gatehub: Gatehub, adapter: Path, photos: Path
) -> None:
    (photos / "bad.png").write_bytes(b"hello")
    files = [photos / name for name in ("1.png", "bad.png", "none.png", "2.png")]
    ran = gatehub("predict", adapter, *files, "--format", "json")
    assert ran.status == 1
    answers = json.loads(ran.out)["images"]
    assert [answer["image"] for answer in answers] == [str(file) for file in files]
    assert [sorted(answer) for answer in answers] == [
        *(["image", "predictions"], ["error", "image"]),
        *(["error", "image"], ["image", "predictions"]),
    ]
    assert "bad.png' cannot be decoded" in answers[1]["error"]
    assert "Error: 2 of the 4 images cannot be used. The first: " in ran.err
    assert "No answer: " in ran.err
    assert "none.png' does not exist" in ran.err
    quiet = gatehub("predict", adapter, *files, "--format", "quiet").out.split("\n")
    best = [answers[place]["predictions"][0]["label"] for place in (0, 3)]
    assert quiet == [best[0], "", "", best[1], ""]
    human = gatehub("predict", adapter, *files[:2])
    assert human.status == 1
    assert "1.png" in human.out
    assert "bad.png' cannot be decoded" in human.err


@pytest.mark.parametrize("format", ["json", "human", "quiet"])
def test_without_any_answer_nothing_is_printed(
    gatehub: Gatehub, adapter: Path, tmp_path: Path, format: str
) -> None:
    ran = gatehub("predict", adapter, tmp_path / "a.png", tmp_path / "b.png", "--format", format)
    assert (ran.status, ran.out) == (1, "")
    assert "Error: 2 of the 2 images cannot be used" in ran.err


def test_strict_stops_at_the_first_bad_file(gatehub: Gatehub, adapter: Path, photos: Path) -> None:
    (photos / "2.png").write_bytes(b"hello")
    for size in (1, 16):
        ran = gatehub(
            *("predict", adapter, photos, "--strict", "--batch-size", size, "--format", "json")
        )
        assert ran.status == 1
        assert names(ran, photos) == ["1.png", "2.png"]
        assert ran.err.startswith("Error: ")
        assert "2.png' cannot be decoded" in ran.err


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_is_in_memory_at_a_time(
    gatehub: Gatehub, adapter: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    seen: list[weakref.ref[object]] = []
    most = 0
    original, guard = Preprocessing._transform, threading.Lock()

    def watch(self: Preprocessing, *args: Any, **options: Any) -> Any:
        nonlocal most
        tensor = original(self, *args, **options)
        with guard:
            seen.append(weakref.ref(tensor))
            most = max(most, sum(found() is not None for found in seen))
        return tensor

    monkeypatch.setattr(Preprocessing, "_transform", watch)
    ran = gatehub("predict", adapter, photos, "--batch-size", size, "--format", "json")
    assert len(ran.json["images"]) == len(seen) == 6
    assert most <= size


def test_answers_come_before_the_stream_ends(
    gatehub: Gatehub, adapter: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows a batch is not even looked for when its answers are written."""
    from gatehub.cli.answers import _prediction

    taken: list[int] = []
    original = _prediction.in_batches

    def watch(items: Any, size: int) -> Any:
        for batch in original(items, size):
            taken.append(len(batch))
            if len(taken) == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(_prediction, "in_batches", watch)
    ran = gatehub("predict", adapter, photos, "--batch-size", 2, "--format", "json")
    assert ran.status == 130
    assert names(ran, photos) == EVERY[:2]  # the object is closed
    out = photos.parent / "answers.csv"
    taken.clear()
    ran = gatehub("predict", adapter, photos, "--batch-size", 2, "--out", out)
    assert ran.status == 130
    assert len(out.read_text().splitlines()) == 3


def test_the_batch_size_changes_no_answer(gatehub: Gatehub, adapter: Path, photos: Path) -> None:
    def ask(size: int) -> list[tuple[str, float]]:
        ran = gatehub("predict", adapter, photos, "--batch-size", size, "--format", "json")
        found = [answer["predictions"][0] for answer in ran.json["images"]]
        return [(best["label"], pytest.approx(best["score"], abs=1e-3)) for best in found]

    assert ask(4) == ask(16)


def test_several_adapters_share_a_pass(
    gatehub: Gatehub, adapter: Path, weather: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {
        folder.name: gatehub("predict", folder, photos, "--format", "json").json["images"]
        for folder in (adapter, weather)
    }
    passes: list[tuple[int, list[str]]] = []
    original = Engine.predict_all

    def watch(self: Engine, images: Any, tasks: Any) -> Any:
        passes.append((len(images), list(tasks)))
        return original(self, images, tasks)

    monkeypatch.setattr(Engine, "predict_all", watch)
    for given in ((weather, photos), (weather, "--data", photos / "1.png", "--data", photos)):
        ran = gatehub("predict", adapter, *given, "--format", "json").json
        del ran["images"][: len(ran["images"]) - 6]
        assert ran["tasks"] == ["marks", "weather"]
        assert [answer["image"] for answer in ran["images"]] == [
            f"{photos}/{name}" for name in EVERY
        ]
        for place, answer in enumerate(ran["images"]):
            assert list(answer["predictions"]) == ["marks", "weather"]
            for task, (best,) in answer["predictions"].items():
                (expected,) = alone[task][place]["predictions"]
                assert best["label"] == expected["label"]
                assert best["score"] == pytest.approx(expected["score"], abs=1e-3)
    assert passes == [(6, ["marks", "weather"]), (7, ["marks", "weather"])]
    quiet = gatehub("predict", adapter, weather, photos / "1.png", "--format", "quiet").out
    labels = [alone[task][0]["predictions"][0]["label"] for task in ("marks", "weather")]
    assert quiet == "\t".join(labels) + "\n"


def test_two_adapters_of_one_task_are_refused(
    gatehub: Gatehub, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    other = save_adapter(tmp_path / "marks", ["a", "b"])
    ran = gatehub("predict", adapter, other, photos)
    assert ran.status == 1
    assert "Two of the folders hold a task named 'marks'" in ran.err


def test_strict_says_that_it_stopped(
    gatehub: Gatehub, adapter: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "2.png").write_bytes(b"hello")
    out = tmp_path / "answers.csv"
    ran = gatehub("predict", adapter, photos, "--strict", "--batch-size", 1, "--out", out)
    assert ran.status == 1
    assert ran.out == f"{out}: 1 of 2 images answered, and stopped there.\n"


def test_csv_and_json_lines(
    gatehub: Gatehub, adapter: Path, weather: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "2.png").write_bytes(b"hello")
    shown = json.loads(
        gatehub("predict", adapter, weather, photos, "--top-k", 2, "--format", "json").out
    )["images"]
    table, lines = tmp_path / "answers.csv", tmp_path / "answers.jsonl"
    for out in (table, lines):
        ran = gatehub("predict", adapter, weather, photos, "--top-k", 2, "--out", out)
        assert ran.status == 1
        assert ran.out == f"{out}: 5 of 6 images answered.\n"
        assert "2.png' cannot be decoded" in ran.err
    assert [json.loads(line) for line in lines.read_text("utf-8").splitlines()] == shown
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "task", "rank", "label", "score", "error"]
    assert [row["path"] for row in rows if row["error"]] == [f"{photos}/2.png"]
    expected = [
        (answer["image"], task, str(rank), found["label"], pytest.approx(found["score"], rel=1e-5))
        for answer in shown
        for task, predictions in answer.get("predictions", {}).items()
        for rank, found in enumerate(predictions, start=1)
    ]
    assert [
        (row["path"], row["task"], row["rank"], row["label"], float(row["score"]))
        for row in rows
        if not row["error"]
    ] == expected
    ran = gatehub("predict", adapter, photos / "1.png", "--out", table, "--format", "json")
    assert ran.json == {"path": str(table), "images": 1, "failures": 0}


def test_a_file_for_answers_is_looked_at_first(
    gatehub: Gatehub, photos: Path, tmp_path: Path
) -> None:
    for out, sentence in (
        (tmp_path / "answers.txt", "does not end in .csv or .jsonl"),
        (tmp_path / "none" / "answers.csv", "which is no folder"),
        (tmp_path, "does not end in"),
    ):
        ran = gatehub("predict", "nowhere", photos, "--out", out, env={"COLUMNS": "1000"})
        assert ran.status == 2
        assert sentence in ran.err


@pytest.mark.parametrize("several", [False, True])
def test_the_table_fits_a_terminal(
    gatehub: Gatehub, tmp_path: Path, weather: Path, several: bool
) -> None:
    folder = save_adapter(tmp_path / "long", ["a", "b" * 40, "\u68a8" * 30])
    files = []
    for name in ("1.png", "x" * 120 + ".png", "\u68a8" * 20 + ".png", "2.png"):
        files.append(tmp_path / name)
        Image.new("RGB", (40, 40)).save(files[-1])
    given = [folder, *([weather] if several else []), *files]
    ran = gatehub("predict", *given, "--top-k", 3, "--batch-size", 2)
    lines = ran.out.splitlines()
    assert sum(line.startswith("image") for line in lines) == 1
    assert max(map(cell_len, lines)) <= 100
    ends = {cell_len(line) for line in lines if line[-4:].isdigit()}
    assert len(ends) == 1  # the scores stand below each other, across batches


def test_a_short_name_cuts_no_header(gatehub: Gatehub, tmp_path: Path, photos: Path) -> None:
    given = [save_adapter(tmp_path / name, ["x", "y"]) for name in "ab"]
    ran = gatehub("predict", *given, photos / "1.png")
    assert ran.out.split()[:4] == ["image", "task", "label", "score"]
