"""Training runs: they learn, can be cut off and continued, and leave nothing half done."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gatehub.adapter import Adapter
from gatehub.adapter.probe import PROBE_IMAGES
from gatehub.backbone import Backbone
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import (
    AdapterExistsError,
    BackboneMismatchError,
    DivergenceError,
    ResumeError,
    TrainingError,
    UnsafeNameError,
)
from gatehub.gates.fold import fold
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training import loop
from gatehub.training.batches import evaluation_batches
from gatehub.training.checkpoint import work_folder
from gatehub.training.data import ImageData, load_data
from gatehub.training.evaluation import Evaluation, evaluate
from gatehub.training.objectives import MULTI_LABEL
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport
from gatehub.training.train import train_adapter
from tests.tiny import make_backbone
from tests.training.images import numbered, write_images
from tests.training.tasks import colour_data, light_data
from tests.training.watching import CutOff

# The tasks are so easy that the start would be best.
RECIPE = Recipe(epochs=4, batch_size=16, seed=5, keep="last")


def run(backbone: Backbone, out: Path, **options: object) -> TrainReport:
    options = {"recipe": RECIPE, "task": "colours", **options}
    return train_adapter(backbone, colour_data(), out, **options)  # type: ignore[arg-type]


def run_with(backbone: Backbone, data: ImageData, out: Path, *, recipe: Recipe) -> TrainReport:
    return train_adapter(backbone, data, out, task="t", recipe=recipe)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def shuffle(data: ImageData, seed: int) -> ImageData:
    """Give validation images random labels, so that only luck makes an epoch better."""
    targets = torch.randint(3, (len(data.val),), generator=torch.Generator().manual_seed(seed))
    return replace(data, val=replace(data.val, targets=tuple(targets.tolist())))


def test_no_adapter_is_below_its_start_on_all_validation_images(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    """Four images after each epoch; whether the epoch that they liked is better is left to luck."""
    kept = set()
    for seed in (6, 7, 10):
        data = shuffle(colour_data(24, 40, seed=seed), seed)
        recipe = Recipe(epochs=3, batch_size=8, gate_rate=0.3, val_images=4, keep="best", seed=seed)
        report = train_adapter(tiny_backbone, data, tmp_path / f"{seed}", task="t", recipe=recipe)
        transform = report.adapter.preprocessing.transform()
        saved = Adapter.load(report.folder)
        measured = evaluate(fold(tiny_backbone, saved), evaluation_batches(data.val, transform))
        assert report.accuracy == measured.accuracy == saved.config.metrics["accuracy"]
        assert report.accuracy >= report.start_accuracy
        kept.add(report.kept_epoch > 0)
    assert kept == {False, True}


def test_a_run_with_any_number_of_labels_is_kept_by_map_and_stores_thresholds(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    data = light_data()
    recipe = replace(RECIPE, keep="best")
    report = run_with(tiny_backbone, data, tmp_path / "lights", recipe=recipe)
    saved = Adapter.load(report.folder)
    assert saved.problem.thresholds is not None
    assert saved.config.training["multi_label"] is True
    transform = saved.preprocessing.transform()
    measured = evaluate(
        fold(tiny_backbone, saved), evaluation_batches(data.val, transform), objective=MULTI_LABEL
    ).decide()
    # The run arranges kernels otherwise, which adds numbers up in another order.
    assert measured.to_thresholds() == pytest.approx(saved.problem.thresholds, abs=1e-4)
    assert saved.config.metrics == pytest.approx(measured.to_metrics(), abs=1e-4)
    assert report.score == report.mean_average_precision
    assert report.score >= report.start_score > 0.8
    log = [json.loads(line) for line in (report.folder / "training.jsonl").read_text().splitlines()]
    kept = max(log, key=lambda r: (r["val_mean_average_precision"], -r["val_loss"]))
    assert report.kept_epoch == kept["epoch"]
    # Another problem, or none, is no continuation; what was cut off ends with the same bytes.
    place = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tiny_backbone, data, place, task="t", recipe=recipe, observer=CutOff(2))
    train_adapter(tiny_backbone, data, place, task="t", recipe=recipe, resume=True)
    assert contents(place) == contents(report.folder)


def test_a_run_of_one_label_says_nothing_of_several(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    report = run(tiny_backbone, tmp_path / "colours")
    texts = [
        (report.folder / name).read_text("utf-8")
        for name in ("config.json", "README.md", "training.jsonl")
    ]
    for word in ("multi", "threshold", "problem", "mean_average_precision"):
        assert not any(word in text for text in texts), word


def test_rare_classes_are_found_where_they_count_alike(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    """Three of four images of two classes are labelled as the third, which is then most likely."""
    whole = colour_data(120, 60)
    targets = tuple(target if i % 4 == 0 else 0 for i, target in enumerate(whole.train.targets))
    data = replace(whole, train=replace(whole.train, targets=targets))
    found = {}
    for weights in ("none", "balanced"):
        recipe = replace(RECIPE, class_weights=weights, keep="best")
        report = run_with(tiny_backbone, data, tmp_path / weights, recipe=recipe)
        batches = evaluation_batches(data.val, report.adapter.preprocessing.transform())
        found[weights] = evaluate(fold(tiny_backbone, report.adapter), batches).recall
    assert found["balanced"] > found["none"] + 0.2


def test_learns_and_saves(tiny_backbone: Backbone, tmp_path: Path) -> None:
    report = run(
        tiny_backbone, tmp_path / "colours", recipe=Recipe(epochs=12, batch_size=16, keep="last")
    )
    assert report.accuracy >= 0.9
    adapter = Adapter.load(report.folder)
    assert adapter.labels == ("blue", "green", "red")
    assert adapter.config.metrics["accuracy"] == report.accuracy
    assert adapter.digest == report.adapter.digest
    assert report.trained_parameters == sum(t.numel() for t in adapter.tensors.values())
    assert report.adapter_bytes == (report.folder / "gates.safetensors").stat().st_size
    log = [
        json.loads(line) for line in (report.folder / "training.jsonl").read_text().split("\n")[:-1]
    ]
    assert [record["epoch"] for record in log] == list(range(13))
    assert log[0]["train_loss"] is None
    assert log[-1]["train_loss"] < log[1]["train_loss"]
    with Image.open(report.folder / "training.png") as curve:
        assert curve.size == (1280, 480)
    with Image.open(report.folder / "gates.png") as gates:
        assert gates.width == 960
    assert "](gates.png)" in (report.folder / "README.md").read_text()
    assert list(tmp_path.iterdir()) == [report.folder]


def test_images_are_seen_by_the_rules_that_were_asked_for(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, colour in (("seen", (0, 0, 0, 255)), ("hidden", (9, 9, 9, 0))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            picture = Image.new("RGBA", (4, 4), colour)
            picture.save(tmp_path / "data" / label / f"{number}.png")
    data = load_data(tmp_path / "data", val_fraction=0.5)
    seen: set[bytes] = set()

    def watch(self: Preprocessing, *source: Any, **options: Any) -> Image.Image:
        image = original(self, *source, **options)
        seen.add(image.tobytes())
        return image

    original = Preprocessing.open
    monkeypatch.setattr(Preprocessing, "open", watch)
    black, white = b"\0" * 48, b"\xff" * 48
    for name, rules, expected in (
        ("own", None, {black, white}),
        ("black", ImageRules(background=(0, 0, 0)), {black}),
    ):
        preprocessing = rules and replace(tiny_backbone.preprocessing, image_rules=rules)
        options = {"recipe": Recipe(epochs=1), "preprocessing": preprocessing}
        train_adapter(tiny_backbone, data, tmp_path / name, task="t", **options)
        assert seen == expected
        assert Adapter.load(tmp_path / name).preprocessing.image_rules == (rules or ImageRules())
        seen.clear()


def test_a_task_may_take_images_of_a_size_of_its_own(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    smaller = tiny_backbone.preprocessing.with_input_size(24)
    report = run(tiny_backbone, tmp_path / "colours", preprocessing=smaller)
    assert Adapter.load(report.folder).preprocessing.input_size == (3, 24, 24)
    larger = replace(smaller, input_size=(3, 32, 32 * 16 + 1))
    with pytest.raises(BackboneMismatchError, match="takes images of 32 x 513 pixels"):
        run(tiny_backbone, tmp_path / "large", preprocessing=larger)
    assert not (tmp_path / "large").exists()


def test_accuracy_is_that_of_the_stored_values(tiny_backbone: Backbone, tmp_path: Path) -> None:
    report = run(tiny_backbone, tmp_path / "colours")
    stored = fold(tiny_backbone, Adapter.load(report.folder))
    arrange_kernels(stored)  # as it was measured: the order of a sum is part of its rounding
    transform = tiny_backbone.preprocessing.transform()
    measured = evaluate(stored, evaluation_batches(colour_data().val, transform))
    assert measured.accuracy == report.accuracy
    assert measured.loss == report.adapter.config.metrics["loss"]


def test_one_seed_gives_one_adapter(tiny_backbone: Backbone, tmp_path: Path) -> None:
    first = contents(run(tiny_backbone, tmp_path / "a").folder)
    torch.rand(7)  # whatever was drawn before must not matter
    assert contents(run(tiny_backbone, tmp_path / "b").folder) == first
    other = run(tiny_backbone, tmp_path / "c", recipe=replace(RECIPE, seed=6))
    assert contents(other.folder)["gates.safetensors"] != first["gates.safetensors"]


@pytest.mark.parametrize("norm", ["affine", "stats"])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_resumed_run_ends_with_the_same_bytes(
    tiny_backbone: Backbone, tmp_path: Path, after: int, norm: str
) -> None:
    whole = run(tiny_backbone, tmp_path / "whole", norm=norm)
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, norm=norm, observer=CutOff(after))
    assert not out.exists()
    run(tiny_backbone, out, norm=norm, resume=True)
    assert contents(out) == contents(whole.folder)
    assert not work_folder(out).exists()


def test_training_and_measuring_run_channels_last(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[bool, set[bool]] = {True: set(), False: set()}
    convolve = torch.nn.Conv2d.forward

    def watch(layer: torch.nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        answer = convolve(layer, images)
        # The probe of an adapter is answered as by any model of timm.
        if answer.device.type == "cpu" and answer.shape[-1] > 1 and len(images) != PROBE_IMAGES:
            seen[answer.requires_grad].add(answer.stride(1) == 1)
        return answer

    monkeypatch.setattr(torch.nn.Conv2d, "forward", watch)
    run(tiny_backbone, tmp_path / "a", recipe=Recipe(epochs=1, batch_size=16, keep="last"))
    assert seen == {True: {True}, False: {True}}


def test_an_interrupted_run_is_not_overwritten(tiny_backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "colours"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, observer=CutOff(1))
    with pytest.raises(ResumeError, match=r"holds an interrupted run.*--resume"):
        run(tiny_backbone, out)
    with pytest.raises(ResumeError, match="has seed = 5, but 6 is asked for now"):
        run(tiny_backbone, out, resume=True, recipe=replace(RECIPE, seed=6))
    with pytest.raises(ResumeError, match="has backbone_digest"):
        run(make_backbone(seed=9), out, resume=True)
    own = tiny_backbone.preprocessing
    dark = replace(own, image_rules=ImageRules(background=(0, 0, 0)))
    with pytest.raises(ResumeError, match="has image_rules"):
        run(tiny_backbone, out, resume=True, preprocessing=dark)
    with pytest.raises(ResumeError, match="has input_size"):
        run(tiny_backbone, out, resume=True, preprocessing=own.with_input_size(40))


def test_resume_without_a_run_begins(tiny_backbone: Backbone, tmp_path: Path) -> None:
    assert run(tiny_backbone, tmp_path / "a", resume=True).epochs == 4


def test_a_damaged_checkpoint_is_named(tiny_backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "colours"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, observer=CutOff(1))
    file = work_folder(out) / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ResumeError, match=r"checkpoint\.safetensors' cannot be read"):
        run(tiny_backbone, out, resume=True)


def test_a_diverged_run_says_so(tiny_backbone: Backbone, tmp_path: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=16, gate_rate=1e30)
    with pytest.raises(DivergenceError, match=r"The loss became nan in epoch .*Lower gate_rate"):
        run(tiny_backbone, tmp_path / "a", recipe=recipe)
    assert list(tmp_path.iterdir()) == []


def test_what_a_diverged_run_leaves_is_not_in_the_way(
    tiny_backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation loss, too, ends a run; and then its checkpoint is of no use."""
    measured, calls = loop.evaluate, 0

    def diverge(*arguments: Any, **options: Any) -> Evaluation:
        nonlocal calls
        calls += 1
        found = measured(*arguments, **options)
        return replace(found, loss=math.nan) if calls == 2 else found

    monkeypatch.setattr(loop, "evaluate", diverge)
    with pytest.raises(DivergenceError, match="nan on the validation images after epoch 2"):
        run(tiny_backbone, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    run(tiny_backbone, tmp_path / "a", recipe=replace(RECIPE, gate_rate=0.001))


def test_features_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = make_backbone().model
    model.get_buffer("bn1.running_mean")[0] = math.nan
    with pytest.raises(TrainingError, match="its layer 'fc' for the training images holds NaN"):
        run(Backbone(model), tmp_path / "a")


def test_statistics_of_single_images_are_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    recipe = replace(RECIPE, batch_size=1)
    with pytest.raises(TrainingError, match="the batch size is 1; expected 2 or more"):
        run(tiny_backbone, tmp_path / "a", recipe=recipe, norm="stats")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = (*numbered("cat", 10), *numbered("dog", 10))
    return write_images(tmp_path / "here" / "photos", *names)


def start_run(backbone: Backbone, photos: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_on(backbone, photos, out, observer=CutOff(2))


def run_on(backbone: Backbone, photos: str | Path, out: Path, **options: object) -> TrainReport:
    options = {"recipe": RECIPE, "task": "pets", **options}
    return train_adapter(backbone, load_data(photos), out, **options)  # type: ignore[arg-type]


def test_a_run_goes_on_with_its_own_images_alone(
    tiny_backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pets"
    start_run(tiny_backbone, photos, out)
    (photos / "cat" / "0.png").rename(photos / "cat" / "zero.png")
    with pytest.raises(ResumeError, match=r"trained on other images: names, .*Put them back"):
        run_on(tiny_backbone, photos, out, resume=True)
    (photos / "cat" / "zero.png").rename(photos / "cat" / "0.png")
    Image.new("RGB", (64, 64), "blue").save(photos / "cat" / "1.png")
    with pytest.raises(ResumeError, match="trained on other images"):
        run_on(tiny_backbone, photos, out, resume=True)
    assert work_folder(out).exists()


def test_a_run_goes_on_with_its_own_order_of_classes_alone(
    tiny_backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pets"
    start_run(tiny_backbone, photos, out)
    (photos / "classes.txt").write_text("dog\ncat\n")
    with pytest.raises(ResumeError, match=r"labels = \['cat', 'dog'\], but \['dog', 'cat'\]"):
        run_on(tiny_backbone, photos, out, resume=True)
    (photos / "classes.txt").write_text("cat\ndog\n")
    assert run_on(tiny_backbone, photos, out, resume=True).epochs == RECIPE.epochs


def test_a_run_goes_on_wherever_its_images_lie(
    tiny_backbone: Backbone, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_on(tiny_backbone, photos, tmp_path / "whole")
    start_run(tiny_backbone, photos, tmp_path / "cut")
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    run_on(tiny_backbone, "photos/", tmp_path / "cut", resume=True)
    same = (contents(folder)["gates.safetensors"] for folder in (whole.folder, tmp_path / "cut"))
    assert next(same) == next(same)


def test_a_run_goes_on_for_more_epochs(tiny_backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "colours"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, observer=CutOff(3))
    with pytest.raises(ResumeError, match=r"3 epochs are done, more than the 2 .*Ask for 3"):
        run(tiny_backbone, out, resume=True, recipe=replace(RECIPE, epochs=2))
    report = run(tiny_backbone, out, resume=True, recipe=replace(RECIPE, epochs=6))
    assert report.epochs == 6
    assert report.adapter.config.training["epochs"] == 6


def test_a_run_that_is_continued_remembers_its_epochs(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    out = tmp_path / "colours"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_backbone, out, observer=CutOff(1))
    assert run(tiny_backbone, out, resume=True, recipe=replace(RECIPE, epochs=None)).epochs == 4


def test_what_cannot_be_saved_is_refused_before_training(
    tiny_backbone: Backbone, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(AdapterExistsError, match="which would be lost"):
        run(tiny_backbone, tmp_path, observer=CutOff(1))
    with pytest.raises(UnsafeNameError, match="not a valid task name"):
        run(tiny_backbone, tmp_path / "a", task="../a", observer=CutOff(1))


def test_a_finished_adapter_is_replaced(tiny_backbone: Backbone, tmp_path: Path) -> None:
    before = run(tiny_backbone, tmp_path / "a").adapter.digest
    recipe = replace(RECIPE, epochs=1)
    assert run(tiny_backbone, tmp_path / "a", recipe=recipe).adapter.digest != before


def test_gates_decay_towards_one(tiny_backbone: Backbone, tmp_path: Path) -> None:
    def distance(decay: float) -> float:
        recipe = Recipe(epochs=2, batch_size=16, gate_decay=decay, gate_rate=0.01, keep="last")
        report = run(tiny_backbone, tmp_path / f"decay{decay}", recipe=recipe, gates="full")
        adapter = report.adapter
        gates = [adapter.tensors[name] for name in adapter.layout.gate_shapes()]
        return sum(float((gate - 1).abs().sum()) for gate in gates)

    assert distance(50.0) < 0.9 * distance(0.0)


PROGRAM = """
import sys
from tests.tiny import make_backbone
from tests.training.tasks import colour_data, light_data
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter

class Say:
    def on_start(self, choices, history, *, steps_per_epoch): pass
    def on_step(self, step): pass
    def on_epoch(self, record, epochs): print(record.epoch, flush=True)

recipe = Recipe(epochs=int(sys.argv[2]), batch_size=16, seed=5, keep="last")
train_adapter(make_backbone(), colour_data(), sys.argv[1], task="colours", recipe=recipe,
              resume=True, observer=Say())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_is_continued(tiny_backbone: Backbone, tmp_path: Path) -> None:
    whole = run(tiny_backbone, tmp_path / "whole", recipe=replace(RECIPE, epochs=10))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, str(out), "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        seen = process.stdout.read()
    assert process.returncode == -signal.SIGKILL, seen
    assert not out.exists()
    run(tiny_backbone, out, recipe=replace(RECIPE, epochs=10), resume=True)
    assert contents(out) == contents(whole.folder)
