"""Measure a training step, its memory and what is learned against fine-tuning with timm.

    python -m benchmarks.training --data FOLDER --weights FILE.safetensors \
        --table benchmarks/training.md          about 15 minutes, nearly all of them for accuracy
    python -m benchmarks.training --only speed memory        without data; random weights do

FOLDER holds a folder for each data set, with a folder for each class. One thread; epochs of
`gatehub train` and of a plain loop over a timm model run in turn, on the same images under the same
augmentation. Peak memory is that of processes of their own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import timm
import torch
from torch import nn

from benchmarks.runtime_table import processor
from benchmarks.timing import Timing, time_in_turn
from benchmarks.training_ways import (
    DEFAULT,
    FINE_TUNING_RATE,
    HELD,
    NO_AUGMENTATION,
    STEPS,
    TIMM,
    TIMM_FAST,
    WAYS,
    Setting,
    Way,
    draw_images,
    fine_tune_epoch,
    make_epoch,
    make_timm,
)
from gatehub.gates.fold import fold
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData, load_data
from gatehub.training.economy.decoded import hold_decoded
from gatehub.training.evaluation import evaluate
from gatehub.training.recipe import Recipe
from gatehub.training.train import train_adapter


def read_images(folder: Path, setting: Setting, *, train: int) -> ImageData:
    """Read so many images to train on, decoded; half of the others validate, half test."""
    _, preprocessing = setting.load()
    data = load_data(folder, train_images=train, preprocessing=preprocessing)
    held = hold_decoded(data.train, preprocessing, limit_bytes=10**9)
    half = data.val.sample(len(data.val) // 2, seed=0)
    names = set(half.names)
    rest = [i for i, name in enumerate(data.val.names) if name not in names]
    test = replace(
        data.val,
        names=tuple(data.val.names[i] for i in rest),
        targets=tuple(data.val.targets[i] for i in rest),
        sources=tuple(data.val.sources[i] for i in rest),
    )
    return replace(data, train=held, val=half, test=test)


def measure_speed(setting: Setting, *, rounds: int) -> dict[str, Timing]:
    """Time short epochs of every way in turn."""
    data = draw_images(setting)
    epochs = {name: make_epoch(way, setting, data) for name, way in WAYS.items()}
    return time_in_turn(epochs, rounds=rounds, warm_up=1, clock=time.process_time)


def measure_memory(arguments: list[str]) -> dict[str, int]:
    """Return how much each way's epochs add to what a process with its imports holds, in bytes."""
    found = {}
    for name in WAYS:
        command = [sys.executable, "-m", "benchmarks.training", *arguments, "--child", name]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(answer.stdout)
    return found


def print_peak(way: Way, setting: Setting) -> None:
    """Train for an epoch, and print by how much the peak of this process rose."""
    data = draw_images(setting)
    before = read_peak()
    epoch = make_epoch(way, setting, data)
    epoch()
    epoch()
    print(read_peak() - before)


def read_peak() -> int:
    """Return the most that this process has held, in bytes.

    Not `resource.getrusage`: Linux begins its figure with the peak of the process that started
    this one.
    """
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def measure_accuracy(
    setting: Setting, folder: Path, *, train: int, epochs: int
) -> dict[str, float]:
    """Return the test accuracy of several ways to train, and the probe's on validation images."""
    data = read_images(folder, setting, train=train)
    backbone, preprocessing = setting.load()
    recipe = Recipe(epochs=epochs, batch_size=setting.batch_size)

    def test(model: nn.Module) -> float:
        images = evaluation_batches(data.test, preprocessing.transform())
        return evaluate(model, images).accuracy

    def train_gates(recipe: Recipe, start: str | None) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "adapter"
            report = train_adapter(
                backbone,
                data,
                out,
                task="task",
                recipe=recipe,
                start=start,
                preprocessing=preprocessing,
            )
            log = (out / "training.jsonl").read_text().splitlines()
        return json.loads(log[0])["val_accuracy"], test(fold(backbone, report.adapter))

    probe, gates = train_gates(recipe, None)
    _, held = train_gates(replace(recipe, **NO_AUGMENTATION), WAYS[HELD].start)
    model = make_timm(setting, backbone, data, channels_last=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=FINE_TUNING_RATE)
    steps = epochs * max(1, len(data.train) // setting.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=FINE_TUNING_RATE, total_steps=steps
    )
    for epoch in range(1, epochs + 1):
        fine_tune_epoch(
            model, optimiser, data, recipe, preprocessing, epoch=epoch, schedule=schedule
        )
    return {"linear probe": probe, DEFAULT: gates, HELD: held, TIMM_FAST: test(model)}


def render(
    setting: Setting,
    timings: dict[str, Timing],
    peaks: dict[str, int],
    accuracies: dict[str, dict[str, float]],
    *,
    epochs: int,
    train: int,
    command: str,
) -> str:
    """Return the tables as Markdown, with the arguments that made them."""
    lines = [
        "# Training, measured",
        "",
        f"    python -m benchmarks.training {command}",
        "",
        f"torch {torch.__version__.split('+')[0]}, timm {timm.__version__}, Python "
        f"{platform.python_version()}, one thread, {processor()}. {setting.backbone}, images of "
        f"{setting.side} x {setting.side}, batches of {setting.batch_size}, crop and AdamW "
        "included, pictures of noise in memory. Processor time; epochs of all ways run in turn; "
        "medians. *Noise* is half the distance between quartiles. *Memory* is what a training "
        "adds to the peak of a process that has its imports and images. Where the stem is computed "
        "once, that pass is not in the time, and nothing is augmented.",
    ]
    if timings or peaks:
        lines += [
            "",
            "| steps of | images/s | noise | against timm | and channels-last | memory |",
            "|---|---|---|---|---|---|",
        ]
    for name in WAYS if timings or peaks else ():
        speed, noise, ratios = "", "", ["", ""]
        if name in timings:
            timing = timings[name]
            speed = f"{STEPS * setting.batch_size / timing.median_ms * 1e3:.1f}"
            noise = f"± {100 * timing.spread:.0f} %"
            ratios = [
                f"{timings[other].median_ms / timing.median_ms:.2f} x"
                for other in (TIMM, TIMM_FAST)
            ]
        memory = f"{peaks[name] / 1e6:.0f} MB" if name in peaks else ""
        lines.append(f"| {name} | {speed} | {noise} | {ratios[0]} | {ratios[1]} | {memory} |")
    if accuracies:
        lines += [
            "",
            f"Accuracy on test images, {train} training images, {epochs} epochs, one seed. The "
            "probe's is on the validation images, by which the epoch of the gates is chosen; "
            f"fine-tuning (AdamW, one cycle up to {FINE_TUNING_RATE:g}, a new head) keeps its "
            "last epoch. Where the stem is computed once, nothing is augmented.",
            "",
            "| | " + " | ".join(accuracies) + " |",
            "|---|" + "---|" * len(accuracies),
        ]
        lines += [
            f"| {way} | " + " | ".join(f"{100 * a[way]:.1f} %" for a in accuracies.values()) + " |"
            for way in next(iter(accuracies.values()))
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what was asked for, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="needed for accuracy")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--sets", nargs="+", default=["openclipart", "mnist"])
    parser.add_argument("--side", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train-images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", nargs="+", choices=["speed", "memory", "accuracy"])
    parser.add_argument("--table", type=Path)
    parser.add_argument("--child", choices=list(WAYS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(
        backbone=given.backbone,
        weights=given.weights,
        side=given.side,
        batch_size=given.batch_size,
    )
    if given.child is not None:
        print_peak(WAYS[given.child], setting)
        return
    wanted = given.only or ["speed", "memory", "accuracy"]
    if "accuracy" in wanted and given.data is None:
        parser.error("--data is needed for accuracy; see --only")
    timings = measure_speed(setting, rounds=given.rounds) if "speed" in wanted else {}
    peaks = measure_memory(sys.argv[1:]) if "memory" in wanted else {}
    accuracies = {}
    for name in given.sets if "accuracy" in wanted else ():
        accuracies[name] = measure_accuracy(
            setting, given.data / name, train=given.train_images, epochs=given.epochs
        )
    text = render(
        setting,
        timings,
        peaks,
        accuracies,
        epochs=given.epochs,
        train=given.train_images,
        command=" ".join(sys.argv[1:]),
    )
    print(text)
    if given.table is not None:
        given.table.write_text(text)


if __name__ == "__main__":
    main()
