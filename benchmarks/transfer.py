"""Every method on the same small tasks: test accuracy against numbers learned and bytes stored.

    python -m benchmarks.transfer lite0.safetensors DATA --table benchmarks/transfer.md

The weights are those of tf_efficientnet_lite0, and DATA holds a folder NAME/CLASS/* for each data
set, as for benchmarks.recipe. All methods begin with the same linear probe, find their rates in the
same way on the training images, take the same number of steps, and keep an epoch by the same
validation images; test images are looked at once, at the end. Results are appended to a file as
they come: what was cut off goes on, and the table is of what is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.recipe import Part, split_images
from benchmarks.transfer_methods import METHODS, store_smaller, train_method
from benchmarks.transfer_table import draw_table_plot, render_table
from gatehub.backbone import Backbone, load_backbone
from gatehub.training.batches import evaluation_batches
from gatehub.training.data import ImageData
from gatehub.training.evaluation import evaluate

Result = dict[str, Any]

# Folder, and how many images train, validate and test.
TASKS = {
    "openclipart 400": ("openclipart", Part(400, 150, 600)),
    "elpv 400": ("elpv", Part(400, 150, 600)),
    "mnist 100": ("mnist", Part(100, 150, 800)),
    "mnist 300": ("mnist", Part(300, 150, 800)),
    "mnist 1000": ("mnist", Part(1000, 300, 800)),
    "stamps 160": ("stamps", Part(160, 30, 60, fewest=20)),
}
SEEDS = (0, 1, 2)


def measure(
    backbone: Backbone, data: ImageData, *, method: str, size: int, seed: int, place: Path
) -> list[Result]:
    """Train by one method, and measure it, and smaller forms of what it made, on test images."""
    preprocessing = backbone.preprocessing.with_input_size(size)
    test = list(evaluation_batches(data.test, preprocessing.transform()))
    began = time.process_time()
    made = train_method(method, backbone, data, preprocessing=preprocessing, seed=seed, place=place)
    seconds = time.process_time() - began
    forms = {method: made, **store_smaller(method, made, backbone)}
    return [
        {
            "method": name,
            "seed": seed,
            "size": size,
            "accuracy": evaluate(form.net, test).accuracy,
            "val_accuracy": form.val_accuracy,
            "start_accuracy": form.start_accuracy,
            "parameters": form.parameters,
            "bytes": form.bytes,
            "epochs": form.epochs,
            "kept": form.kept_epoch,
            "seconds": round(seconds, 1),
            "images": len(data.test),
        }
        for name, form in forms.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("build/transfer.jsonl"))
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(options.backbone, weights=options.weights)
    log = options.results
    log.parent.mkdir(parents=True, exist_ok=True)
    results = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    run = {"backbone": options.backbone, "size": options.size}
    key = ("backbone", "task", "size", "seed", "method")
    done = {tuple(result[name] for name in key) for result in results}
    for seed, task, method in itertools.product(options.seeds, options.only, options.methods):
        asked = {**run, "task": task, "seed": seed, "method": method}
        if tuple(asked[name] for name in key) in done:
            continue
        folder, part = TASKS[task]
        preprocessing = backbone.preprocessing.with_input_size(options.size)
        data = split_images(options.data / folder, part, preprocessing, seed=seed)
        place = log.parent / "transfer" / f"{options.backbone}-{options.size}" / f"{task}-{seed}"
        rows = measure(backbone, data, method=method, size=options.size, seed=seed, place=place)
        with log.open("a") as file:
            for row in rows:
                results.append({**asked, **row})
                file.write(json.dumps(results[-1]) + "\n")
                print(json.dumps(results[-1]), flush=True)
    options.table.write_text(render_table(results, picture=draw_table_plot(results, options.table)))


if __name__ == "__main__":
    main()
