"""Several processes train as one would, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import load_backbone
from gatehub.backbone.images import ImageRules
from gatehub.errors import DeviceError, TrainingError
from gatehub.training.data import load_data
from gatehub.training.examples import Examples
from gatehub.training.parallel.leading import check_team, choose_devices
from gatehub.training.parallel.plan import Plan, read_plan, write_plan
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.recipe import Recipe
from gatehub.training.sources.huggingface import rows
from gatehub.training.train import train_adapter
from tests.tiny import make_backbone
from tests.training.images import numbered, write_images
from tests.training.tasks import LABELS, colour_data, light_data

# Trains with two processes, and at a signal on standard input does harm to the other one.
PROGRAM = """
import os, signal, sys
import numpy as np
from pathlib import Path
from gatehub.backbone import load_backbone
from gatehub.errors import GatehubError
from gatehub.training.data import load_data
from gatehub.training.parallel import leading
from gatehub.training.parallel.plan import Plan
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter

out, photos, harm = sys.argv[1:]
backbone, data = load_backbone("demo"), load_data(photos)
recipe = Recipe(epochs=2, batch_size=5, gate_rate=0.01, head_rate=0.01, seed=1, keep="last",
                averaging=0.0, min_crop=0.9)
plan = Plan(
    backbone="demo", weights=None, digest=backbone.digest, labels=data.labels, train=data.train,
    recipe=recipe, gates="auto", norm="affine", start=None, preprocessing=backbone.preprocessing,
    workers=0, devices=("cpu", "cpu"), threads=1,
)
start, begun = leading._start, []

def watch(*arguments):
    begun.append(start(*arguments))
    return begun[-1]

leading._start = watch

class Observer:
    def on_start(self, *arguments, **options): pass
    def on_step(self, step):
        if harm == "kill" and step.done == 2:
            begun[0].kill()
        if harm == "leave" and step.done == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch(self, record, epochs):
        if harm == "vanish":  # the second image of the next batch is the other's
            order = np.random.default_rng((recipe.seed, 2)).permutation(len(data.train))
            data.train.sources[order[1]].unlink()
        if harm == "interrupt":
            raise KeyboardInterrupt

def train(team, **options):
    options |= {"recipe": recipe, "dtype": "float32", "team": team}
    return train_adapter(backbone, data, out, task="pets", **options)

try:
    with leading.lead(plan) as team:
        print(begun[0].pid, flush=True)
        train(team, observer=Observer())
except KeyboardInterrupt:
    harm = ""
    with leading.lead(plan) as team:
        train(team, resume=True)
except GatehubError as error:
    print(error, flush=True)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos", *numbered("cat", 10), *numbered("dog", 10))


def run(out: Path, photos: Path, harm: str) -> tuple[int, int, str]:
    """Return the exit status of the first process, the other's number, and what was said."""
    command = [sys.executable, "-c", PROGRAM, str(out), str(photos), harm]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        other = process.stdout.readline()
        try:
            said, _ = process.communicate(timeout=600)
        finally:
            process.kill()
    return process.returncode, int(other), said.decode()


def is_running(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX processes")
def test_two_processes_train_as_one_does(photos: Path, tmp_path: Path) -> None:
    """An interrupted run too, when it goes on. Batches of five are not divided evenly."""
    recipe = Recipe(
        epochs=2,
        batch_size=5,
        gate_rate=0.01,
        head_rate=0.01,
        seed=1,
        keep="last",
        averaging=0.0,
        min_crop=0.9,
    )
    backbone, data = load_backbone("demo"), load_data(photos)
    alone = train_adapter(
        backbone, data, tmp_path / "one", task="pets", recipe=recipe, dtype="float32"
    ).adapter
    status, other, said = run(tmp_path / "two", photos, "interrupt")
    assert (status, said) == (0, "")
    assert not is_running(other)
    together = Adapter.load(tmp_path / "two")
    moved = {name: (t - 1).abs().max() for name, t in alone.tensors.items() if "gate" in name}
    assert max(moved.values()) > 0.01
    for name, tensor in alone.tensors.items():
        torch.testing.assert_close(together.tensors[name], tensor, rtol=0, atol=2e-3)
    logs = [
        [json.loads(line) for line in (tmp_path / name / "training.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert logs[0][0] == logs[1][0]
    for one, two in zip(*logs, strict=True):
        for loss in ("train_loss", "val_loss"):
            assert two[loss] == pytest.approx(one[loss], abs=1e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "photos", "two"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("kill", "Process 2 of 2 was killed (signal 9), perhaps for lack of memory. Use fewer"),
        ("vanish", ".png' does not exist"),
        ("leave", ""),
    ],
)
def test_processes_end_together(photos: Path, tmp_path: Path, harm: str, sentence: str) -> None:
    status, other, said = run(tmp_path / "out", photos, harm)
    assert status == (-signal.SIGKILL if harm == "leave" else 0)
    assert sentence in said
    assert len(said.splitlines()) == bool(sentence)
    while is_running(other):  # until it notices, which is a matter of its own clock
        time.sleep(0.05)
    assert (tmp_path / "out.training" / "checkpoint.safetensors").exists() == (harm == "vanish")


def test_each_image_of_a_batch_is_somebodys() -> None:
    batch = list(range(7))
    shares = [Team(rank, 3).share(batch) for rank in range(3)]
    assert sorted(image for share in shares for image in share) == batch
    assert [len(share) for share in shares] == [3, 2, 2]
    assert ALONE.share(batch) == batch


def test_a_plan_comes_back_as_it_was(tmp_path: Path) -> None:
    backbone, data = make_backbone(), colour_data()
    plan = Plan(
        backbone="demo",
        weights=None,
        digest=backbone.digest,
        labels=LABELS,
        train=data.train,
        recipe=Recipe(seed=7, gate_rate=0.1),
        gates="scale",
        norm="frozen",
        start="layer2",
        preprocessing=replace(backbone.preprocessing, image_rules=ImageRules(background=(1, 2, 3))),
        workers=2,
        devices=("cpu", "cpu"),
        threads=1,
    )
    write_plan(tmp_path, plan)
    found = read_plan(tmp_path)
    assert all(map(np.array_equal, found.train.sources, data.train.sources))
    assert (found.train.names, found.train.targets) == (data.train.names, data.train.targets)
    assert replace(found, train=data.train) == plan
    files = replace(data.train, sources=tuple(map(Path, data.train.names)))
    write_plan(tmp_path, replace(plan, train=files, preprocessing=backbone.preprocessing))
    assert read_plan(tmp_path).train.sources == files.sources
    assert read_plan(tmp_path).preprocessing == backbone.preprocessing
    several = light_data(8).train
    write_plan(tmp_path, replace(plan, train=several))
    again = read_plan(tmp_path).train
    assert (again.targets, again.label_count) == (several.targets, several.label_count)


def test_a_plan_finds_the_rows_of_a_data_set_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    class Split(list[dict[str, dict[str, bytes]]]):
        """Stands in for a split of the package `datasets`, whatever is asked of it."""

    def load(source: str) -> dict[str, Split]:
        loaded.append(source)
        return {
            name: Split({"image": {"bytes": f"{name}{i}".encode()}} for i in range(3))
            for name in ("train", "extra")
        }

    monkeypatch.setattr(rows, "load_splits", load)
    monkeypatch.setattr(rows.Row, "encoded", staticmethod(lambda dataset, column: dataset))
    places = [("train", 2), ("extra", 0), ("train", 1)]
    found = rows.find_rows(rows.Place("hf:acme/eyes", split, "image", i) for split, i in places)
    train = Examples(names=("a", "b", "c"), targets=(0, 1, 0), sources=tuple(found))
    backbone = make_backbone()
    plan = Plan(
        backbone="demo",
        weights=None,
        digest=backbone.digest,
        labels=("x", "y"),
        train=train,
        recipe=Recipe(),
        gates="auto",
        norm="affine",
        start=None,
        preprocessing=backbone.preprocessing,
        workers=0,
        devices=("cpu", "cpu"),
        threads=1,
    )
    write_plan(tmp_path, plan)
    again = read_plan(tmp_path).train
    assert [again.source(i) for i in range(3)] == [b"train2", b"extra0", b"train1"]
    assert loaded == ["hf:acme/eyes"] * 2  # once here, and once for all that is read again


def test_what_several_cannot_do_as_one_is_refused() -> None:
    check_team(1, batch_size=1, images=1, norm="stats")
    check_team(2, batch_size=2, images=2, norm="affine")
    with pytest.raises(TrainingError, match="each of 2 devices would see only its share"):
        check_team(2, batch_size=32, images=100, norm="stats")
    with pytest.raises(TrainingError, match="A batch has 3 images, fewer than the 4 devices"):
        check_team(4, batch_size=32, images=3, norm="affine")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_devices("cpu", 3) == (torch.device("cpu"),) * 3
    monkeypatch.setattr("gatehub.training.parallel.leading.find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_devices("cuda", 2) == (torch.device("cuda:0"), torch.device("cuda:1"))
    assert choose_devices("cuda:1", 1) == (torch.device("cuda:1"),)
    with pytest.raises(DeviceError, match="3 devices are asked for, but there are 2 GPUs here"):
        choose_devices("cuda", 3)
    with pytest.raises(DeviceError, match="and cuda:1 alone is named"):
        choose_devices("cuda:1", 2)
