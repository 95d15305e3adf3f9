"""Batches that mix tasks, and one image for many tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from benchmarks.runtime_table import Report
from benchmarks.runtime_tasks import MAIN, make_adapter, make_engine, random_images
from gatehub.backbone import Backbone
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.dtypes import DTYPES
from gatehub.runtime.execution.execution import Execution


def measure_mixed(report: Report, backbone: Backbone, rounds: int) -> None:
    """Batches that mix tasks, and one image for many tasks."""
    images = random_images(8, backbone)
    name, main = backbone.identity.name, backbone.identity.name == MAIN
    for dtype in ("float32", "bfloat16"):
        engine = make_engine(backbone, dtype)
        scale = [f"scale{number}" for number in range(8)]
        late = [f"late{number}" for number in range(16)]
        start = "layer4" if main else "blocks.6"
        for number, task in enumerate(scale):
            engine.load(task, make_adapter(backbone, seed=number, gates="scale"))
        for number, task in enumerate(late):
            engine.load(task, make_adapter(backbone, seed=100 + number, start=start))
        times = report.time(_runs(engine, dtype, start, scale, late, images), rounds=rounds)
        full = dtype == "float32"
        report.ratio(
            f"{name}, {dtype}: 8 scale tasks in one pass, against one task's batch",
            times[f"{dtype}: 8 images of one scale task"],
            times[f"{dtype}: 8 scale tasks in one batch"],
            at_least=0.75 if main else None,
        )
        report.ratio(
            f"{name}, {dtype}: 8 scale tasks in one pass, against eight passes",
            times[f"{dtype}: 8 scale tasks one by one"],
            times[f"{dtype}: 8 scale tasks in one batch"],
            at_least=1.0 if main else None,
        )
        report.ratio(
            f"{name}, {dtype}: 8 {start} tasks in one batch, against one task's batch",
            times[f"{dtype}: 8 images of one {start} task"],
            times[f"{dtype}: 8 {start} tasks in one batch"],
            at_least=(0.80 if full else 0.70) if main else None,
        )
        report.ratio(
            f"{name}, {dtype}: one image, 16 {start} tasks, against 16 single answers",
            times[f"{dtype}: 16 {start} tasks, one image, one by one"],
            times[f"{dtype}: 16 {start} tasks, one image, predict_all"],
            at_least=3.0 if main else None,
        )
        merged = MergedBackbone(backbone)
        task = make_adapter(backbone, seed=0, start=start)
        plan = merged.plan_task(task)
        folded = Execution(merged, DTYPES[dtype]).fold(task, plan)
        gated = sum(
            weight.nbytes
            for place, weight in merged.fold(task, plan, dtype=DTYPES[dtype]).items()
            if place.endswith(".weight")
        )
        report.figure(
            f"{name}, {dtype}: bytes of a folded {start} task over its gated layers",
            100 * (folded.bytes / gated - 1),
            unit="%",
            at_most=2.0 if main else None,
        )


def _runs(
    engine: Engine,
    dtype: str,
    start: str,
    scale: Sequence[str],
    late: Sequence[str],
    images: Tensor,
) -> dict[str, Callable[[], object]]:
    one = images[:1]
    return {
        f"{dtype}: 8 images of one scale task": lambda: engine.predict(scale[0], images),
        f"{dtype}: 8 scale tasks in one batch": lambda: engine.predict_mixed(scale, images),
        f"{dtype}: 8 scale tasks one by one": lambda: [
            engine.predict(task, images[n : n + 1]) for n, task in enumerate(scale)
        ],
        f"{dtype}: 8 images of one {start} task": lambda: engine.predict(late[0], images),
        f"{dtype}: 8 {start} tasks in one batch": lambda: engine.predict_mixed(late[:8], images),
        f"{dtype}: 16 {start} tasks, one image, one by one": lambda: [
            engine.predict(task, one) for task in late
        ],
        f"{dtype}: 16 {start} tasks, one image, predict_all": lambda: engine.predict_all(one, late),
    }
