"""Measure the runtime against what teams run today, and write the table.

    python -m benchmarks.runtime --table benchmarks/runtime.md      about 20 minutes on 2 cores
    python -m benchmarks.runtime --only speed swap                  some of the sections

Everything is timed in turn within this one process; medians, and the spread of each. The memory of
many tasks is read from outside, in processes of its own. PEFT is compared where it is installed
(pip install peft).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from shutil import which

import torch
from torch import Tensor

from benchmarks.runtime_fairness import QUIET, measure_tails
from benchmarks.runtime_load import draw_plot, run_loads
from benchmarks.runtime_memory import measure
from benchmarks.runtime_mixed import measure_mixed
from benchmarks.runtime_peers import Checkpoint, PeftTasks, compiled, onnx_sessions, timm_eager
from benchmarks.runtime_table import Report, render
from benchmarks.runtime_tasks import (
    MAIN,
    POINTWISE,
    make_adapter,
    make_backbone,
    make_engine,
    random_images,
)
from benchmarks.timing import time_in_turn
from gatehub.backbone import Backbone
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.dtypes import has_matrix_units
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.heap import keep_freed_memory
from gatehub.runtime.tasks.packed import Packer

DTYPE_NAMES = ("float32", "bfloat16")

Section = Callable[[Report, Backbone, int], None]


def measure_speed(report: Report, backbone: Backbone, rounds: int) -> None:
    """One task, against a model of timm and a session of ONNX Runtime."""
    adapter = make_adapter(backbone, seed=0)
    images = random_images(8, backbone)
    eager = timm_eager(backbone, adapter)
    (session,) = onnx_sessions(backbone, adapter, 1)
    engines = {
        dtype: make_engine(backbone, dtype, task=adapter) for dtype in ("float32", "bfloat16")
    }
    runs: dict[str, Callable[[], object]] = {}
    for batch in (8, 1):
        some = images[:batch]
        runs |= {
            f"timm eager, float32, batch {batch}": _call(eager, some),
            f"timm eager again, batch {batch}": _call(eager, some),
            f"ONNX Runtime, float32, batch {batch}": _call(session, some),
        }
        for dtype, engine in engines.items():
            runs[f"engine, {dtype}, batch {batch}"] = _predict(engine, "task", some)
    if which("g++") is not None:
        for dtype in ("float32", "bfloat16"):
            run = compiled(backbone, adapter, getattr(torch, dtype))
            for batch in (8, 1):
                runs[f"torch.compile, folded, {dtype}, batch {batch}"] = _call(run, images[:batch])
    if find_spec("peft") is not None:
        peft = PeftTasks(backbone)
        runs["PEFT LoRA r=4, unmerged, batch 8"] = _call(peft.run, images)
        runs["PEFT LoRA r=4, merged and unmerged, batch 8"] = _call(peft.run_merged, images)
    times = report.time(runs, rounds=rounds)
    name = backbone.identity.name
    report.ratio(
        f"{name}: engine float32, batch 8, against timm eager",
        times["timm eager, float32, batch 8"],
        times["engine, float32, batch 8"],
        at_least=1.35 if name == MAIN else None,
    )
    report.ratio(
        f"{name}: A against A (timm eager, batch 8)",
        times["timm eager, float32, batch 8"],
        times["timm eager again, batch 8"],
    )
    units = has_matrix_units(torch.device("cpu"))
    for peer, least in (("timm eager", 4.5), ("ONNX Runtime", 2.5)):
        report.ratio(
            f"{name}: engine bfloat16, batch 8, against {peer} float32",
            times[f"{peer}, float32, batch 8"],
            times["engine, bfloat16, batch 8"],
            at_least=least if units and name == MAIN else None,
            note="" if units else "this CPU has no AMX, so `auto` takes float32 here",
        )
    for dtype, batch in product(("float32", "bfloat16"), (8, 1)):
        what = f"{dtype}, batch {batch}"
        for peer in ("ONNX Runtime", "torch.compile, folded"):
            if f"{peer}, {what}" in times:
                report.ratio(
                    f"{name}: engine {what}, against {peer}",
                    times[f"{peer}, {what}"],
                    times[f"engine, {what}"],
                )


def measure_swap(report: Report, backbone: Backbone, rounds: int) -> None:
    """Going from one task to another, resident or not."""
    images = random_images(8, backbone)
    engine = make_engine(backbone, "float32")
    for number in range(64):
        engine.load(f"task{number}", make_adapter(backbone, seed=number))
        engine.predict(f"task{number}", images)  # its kernels are reordered here
    adapter = make_adapter(backbone, seed=0)
    models = [timm_eager(backbone, adapter) for _ in range(8)]
    sessions = onnx_sessions(backbone, adapter, 8)
    turn = iter(range(10**9))
    runs: dict[str, Callable[[], object]] = {
        "one resident task, batch 8": _predict(engine, "task0", images),
        "64 resident tasks in turn, batch 8": lambda: engine.predict(
            f"task{next(turn) % 64}", images
        ),
        "8 models of timm in turn, batch 8": lambda: models[next(turn) % 8](images),
        "8 sessions of ONNX Runtime in turn, batch 8": lambda: sessions[next(turn) % 8](images),
    }
    if find_spec("peft") is not None:
        peft = PeftTasks(backbone)
        runs["PEFT set_adapter, there and back"] = peft.switch
    times = report.time(runs, rounds=max(64, 4 * rounds))
    report.ratio(
        "64 resident tasks in turn, against one task",
        times["one resident task, batch 8"],
        times["64 resident tasks in turn, batch 8"],
        at_least=0.97,
    )
    switching = time_in_turn(
        {"switch": lambda: [engine.prefetch(f"task{next(turn) % 64}") for _ in range(100)]},
        rounds=50,
    )["switch"]
    report.figure("switching to a resident task", switching.median_ms * 10, unit="µs", at_most=50.0)


def measure_fold(report: Report, backbone: Backbone, rounds: int) -> None:
    """From gates in memory to weights that can answer."""
    adapter = make_adapter(backbone, seed=0).as_stored("float16")
    merged = MergedBackbone(backbone)
    execution, packed = Execution(merged, torch.float32), Packer().pack(adapter)
    plan = merged.plan_task(packed)
    weights = list(merged.fold(packed, plan, dtype=torch.float32).values())
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(backbone, adapter, Path(folder))
        runs: dict[str, Callable[[], object]] = {
            "fold, merge and lay out from gates in memory": lambda: execution.fold(packed, plan),
            "copy of the folded weights": lambda: [weight.clone() for weight in weights],
            "build and load a full checkpoint": checkpoint.load,
        }
        if find_spec("peft") is not None:
            peft = PeftTasks(backbone)
            runs["PEFT merge and unmerge"] = peft.merge_and_unmerge
        times = report.time(runs, rounds=4 * rounds)
    fold = times["fold, merge and lay out from gates in memory"]
    name, main = backbone.identity.name, backbone.identity.name == MAIN
    report.ratio(
        f"{name}: fold, as a multiple of a copy of the same bytes",
        fold,
        times["copy of the folded weights"],
        at_most=2.0 if main else None,
    )
    report.ratio(
        f"{name}: fold, against building and loading a checkpoint",
        times["build and load a full checkpoint"],
        fold,
        at_least=8.0 if main else None,
    )
    if "PEFT merge and unmerge" in times:
        report.ratio(
            f"{name}: fold, against PEFT's merge and unmerge",
            times["PEFT merge and unmerge"],
            fold,
            at_least=3.0 if main else None,
        )


def measure_memory(report: Report, backbone: Backbone, rounds: int) -> None:
    """What tasks take, read from outside."""
    name = backbone.identity.name
    alone = measure(name, "auto", 0, 1)
    many = measure(name, "auto", 100, 8)
    weights = sum(tensor.nbytes for tensor in backbone.model.state_dict().values())
    allowed = 1.1 * (weights + many.folded + many.gates) - weights
    taken = many.resident - alone.resident
    report.figure(
        f"{name}: 100 tasks, 8 folded, 92 as gates: MB over the backbone's process",
        taken / 1e6,
        unit="MB",
        at_most=allowed / 1e6,
    )
    report.figure(
        f"{name}: 100 checkpoints in memory, as a multiple of backbone and 100 tasks",
        100 * weights / (weights + taken),
        unit="x",
        at_least=5.0,
    )
    one, thousand = measure(name, "scale", 1, 1), measure(name, "scale", 1000, 1)
    report.figure(
        f"{name}: 1000 scale tasks: MB over the process with one",
        (thousand.resident - one.resident) / 1e6,
        unit="MB",
        at_most=(weights + 60e6) / 1e6,
    )


def measure_fairness(report: Report, backbone: Backbone, rounds: int) -> None:
    """Quiet tasks beside one that floods the queues."""
    for situation, tail in measure_tails(backbone, requests=10 * rounds).items():
        for what, value in (("half", tail.p50_ms), ("99 of 100", tail.p99_ms)):
            report.figure(
                f"{QUIET} clients of one image at a time, {situation}: {what} wait no longer than",
                value,
                unit="ms",
            )


SECTIONS: Mapping[str, tuple[Section, Sequence[str]]] = {
    "speed": (measure_speed, (MAIN, POINTWISE)),
    "swap": (measure_swap, (MAIN,)),
    "fold": (measure_fold, (MAIN, POINTWISE)),
    "mixed": (measure_mixed, (MAIN, POINTWISE)),
    "fairness": (measure_fairness, (MAIN,)),
    "memory": (measure_memory, (MAIN,)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runtime", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=[*SECTIONS, "load"], help="some sections")
    parser.add_argument("--rounds", type=int, default=20, help="how often each thing is timed")
    parser.add_argument("--requests", type=int, default=300, help="of each load")
    parser.add_argument(
        "--table", type=Path, help="where to write the table, and its plot beside it"
    )
    options = parser.parse_args(arguments)
    keep_freed_memory()  # as the command does; what it is compared with gains alike
    report, points = Report(), []
    for section, (run, names) in SECTIONS.items():
        if options.only and section not in options.only:
            continue
        for name in names:
            print(f"{section}: {name}", file=sys.stderr, flush=True)
            report.begin(f"{section}: {name}")
            run(report, make_backbone(name), options.rounds)
    if not options.only or "load" in options.only:
        print("load", file=sys.stderr, flush=True)
        points = run_loads(make_backbone(MAIN), requests=options.requests)
        least = next(p for p in points if p.tasks == 1 and p.pattern == "zipf")
        most = next(p for p in points if p.tasks == 1000 and p.pattern == "zipf")
        report.figure(
            "Zipf over 1000 tasks, 16 folded, against one task: requests a second",
            most.requests_s / least.requests_s,
            unit="x",
            at_least=0.8,
        )
    plot = options.table.with_suffix(".png") if options.table and points else None
    if plot is not None:
        draw_plot(points, plot)
    text = render(report, points, plot=plot)
    if options.table is not None:
        options.table.write_text(text)
    print(text)
    return int(not report.holds)


def _call(run: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], object]:
    return lambda: run(images)


def _predict(engine: Engine, task: str, images: Tensor) -> Callable[[], object]:
    return lambda: engine.predict(task, images)


if __name__ == "__main__":
    sys.exit(main())
