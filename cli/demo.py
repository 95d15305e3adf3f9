"""gatehub demo: the whole way of an adapter, three times, on one small backbone.

gatehub demo
gatehub demo --keep demo-files --format json
"""

from __future__ import annotations

import io
import json
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.cli._data import read_data
from gatehub.cli._errors import reports_errors
from gatehub.cli._output import (
    Format,
    FormatOption,
    Output,
    format_bytes,
    format_percent,
    make_table,
)
from gatehub.cli.training._watching import watch_training

if TYPE_CHECKING:
    from rich.table import Table

    from gatehub.backbone import Backbone
    from gatehub.runtime.engine import Engine
    from gatehub.training.data import ImageData

TASKS = {
    "digits": "sklearn:digits",
    "georgian": "glyphs:georgian",
    "symbols": "glyphs:symbols",
}
ORGANISATION = "demo"
IMAGES_PER_TASK = 60
CLIENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTask:
    """One row of the last table; accuracies are fractions of the held-out images."""

    task: str
    classes: int
    linear_accuracy: float
    accuracy: float
    adapter_bytes: int
    checkpoint_bytes: int


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: gatehub demo --keep demo-files")(demo)


@reports_errors
def demo(
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Keep the adapters, the hub and the ONNX file in this folder.",
        ),
    ] = None,
    format: FormatOption = Format.human,
) -> None:
    """Train three tasks on one backbone, share, serve and export them, and check every step.

    Handwritten digits (scikit-learn's scans), a script and symbols (rendered), on a backbone
    that has only seen Latin letters. Takes about two minutes on two cores.
    """
    from gatehub.adapter import Adapter
    from gatehub.backbone import load_backbone
    from gatehub.export import export_onnx
    from gatehub.runtime.engine import Engine

    output = Output(format)
    with _workplace(keep) as place:
        backbone = load_backbone("demo")
        data = {
            task: read_data(
                output, source, seed=0, skip_bad=False, preprocessing=backbone.preprocessing
            )
            for task, source in TASKS.items()
        }
        rows = [
            _train(output, backbone, images, place / "trained" / task, task)
            for task, images in data.items()
        ]
        folders = _share(output, place)
        engine = Engine(backbone)
        for task, folder in folders.items():
            engine.load(task, folder)
        served, mismatches = _serve(output, engine, data)
        first = next(iter(folders))
        output.note(f"Exporting '{first}' to ONNX.")
        report = export_onnx(backbone, Adapter.load(folders[first]), place / f"{first}.onnx")
        output.note(
            f"{format_bytes(report.bytes)}; ONNX Runtime differs from PyTorch by at most "
            f"{report.max_abs_diff:.2g}."
        )
        output.result(
            {
                "tasks": [asdict(row) for row in rows],
                "served": served,
                "mismatches": mismatches,
                "onnx_max_abs_diff": report.max_abs_diff,
            },
            human=_tabulate(rows),
            quiet="\n".join(f"{row.task} {row.accuracy:.4f}" for row in rows),
        )
        if mismatches:
            output.note(f"{mismatches} of {served} served answers differ from offline ones.")
            raise typer.Exit(1)
        _suggest(output, folders[first] if keep else None)


def _train(
    output: Output, backbone: Backbone, images: ImageData, folder: Path, task: str
) -> DemoTask:
    """Train one adapter; its start is the linear probe that it is compared with."""
    import safetensors.torch

    from gatehub.gates.fold import fold
    from gatehub.training.train import train_adapter

    output.note(
        f"Training '{task}': {len(images.labels)} classes, {len(images.train)} images to train "
        f"on, {len(images.val)} held out."
    )
    with watch_training(output, task) as observer:
        report = train_adapter(backbone, images, folder, task=task, resume=True, observer=observer)
    output.note(
        f"{task}: gates {format_percent(report.accuracy)}, linear probe "
        f"{format_percent(report.start_accuracy)}."
    )
    state = fold(backbone, report.adapter).state_dict()
    checkpoint = safetensors.torch.save({name: t.contiguous() for name, t in state.items()})
    return DemoTask(
        task=task,
        classes=len(images.labels),
        linear_accuracy=report.start_accuracy,
        accuracy=report.accuracy,
        adapter_bytes=report.adapter_bytes,
        checkpoint_bytes=len(checkpoint),
    )


def _share(output: Output, place: Path) -> dict[str, Path]:
    """Push every adapter to a folder hub and pull it into a clean place."""
    from gatehub.adapter import Adapter
    from gatehub.errors import HubIntegrityError
    from gatehub.hub import pull, push

    hub = place / "hub"
    folders = {}
    for task in TASKS:
        pushed = push(place / "trained" / task, f"{ORGANISATION}/{task}", hub=hub, tag="v1")
        folder = pull(
            f"{ORGANISATION}/{task}@{pushed.commit}", hub=hub, out=place / "pulled" / task
        )
        sent, received = Adapter.load(place / "trained" / task), Adapter.load(folder)
        if sent.digest != received.digest:
            raise HubIntegrityError(
                f"'{task}' was pushed with digest {sent.digest} and pulled with {received.digest}."
            )
        output.note(
            f"Pushed and pulled {ORGANISATION}/{task}, commit {pushed.commit[:12]}, "
            f"digest {received.digest[:12]} on both sides."
        )
        folders[task] = folder
    return folders


def _serve(output: Output, engine: Engine, data: dict[str, ImageData]) -> tuple[int, int]:
    """Ask a real server about held-out images of all tasks in turn; count wrong answers."""
    from gatehub.server import running_server

    requests = [
        (task, index)
        for index in range(IMAGES_PER_TASK)
        for task, images in data.items()
        if index < len(images.val)
    ]

    def ask(request: tuple[str, int]) -> bool:
        task, index = request
        info = engine.task(task)
        picture = data[task].val.image(index)
        logits = engine.predict(task, info.preprocessing.transform()(picture)[None])[0]
        score, best = logits.softmax(0).max(0)
        encoded = io.BytesIO()
        picture.save(encoded, "PNG")
        with urllib.request.urlopen(f"{url}/tasks/{task}", encoded.getvalue(), 30) as response:
            answer = json.load(response)[0]
        same_label = answer["label"] == info.labels[int(best)]
        return bool(same_label and abs(answer["score"] - float(score)) < 1e-5)

    with running_server(engine) as url:
        output.note(f"Serving {len(data)} tasks on {url}.")
        with output.progress("asking") as advance, ThreadPoolExecutor(CLIENTS) as clients:
            right = 0
            for done, same in enumerate(clients.map(ask, requests), start=1):
                right += same
                advance(done, len(requests))
    output.note(f"{right} of {len(requests)} served answers equal the offline ones.")
    return len(requests), len(requests) - right


def _tabulate(rows: Sequence[DemoTask]) -> Table:
    return make_table(
        ("task", "classes", "linear probe", "gates", "adapter", "full checkpoint", "ratio"),
        [
            (
                row.task,
                str(row.classes),
                format_percent(row.linear_accuracy),
                format_percent(row.accuracy),
                format_bytes(row.adapter_bytes),
                format_bytes(row.checkpoint_bytes),
                f"1 : {row.checkpoint_bytes / row.adapter_bytes:.1f}",
            )
            for row in rows
        ],
    )


def _suggest(output: Output, folder: Path | None) -> None:
    """Name the three commands to try next; without kept files, they begin with training."""
    train = "gatehub train --backbone demo --data sklearn:digits --task digits --out digits"
    place = "digits" if folder is None else str(folder)
    commands = [f"gatehub serve {place}", f"gatehub export {place} --out digits.onnx"]
    commands.insert(0, train if folder is None else f"gatehub inspect {place}")
    output.note("\nTry next:\n" + "\n".join(f"  {command}" for command in commands))


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    """Yield a folder for the demo's files: the one to keep, or one that goes away."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="gatehub-demo-") as folder:
            yield Path(folder)
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
