"""What became of each task's requests, as the protocol's statistics extension tells it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatehub.server.inference_protocol.inference import VERSION
from gatehub.server.observing.metrics import MAX_TASKS
from gatehub.server.observing.record import OK, RequestRecord

if TYPE_CHECKING:
    from starlette.types import Scope

# What the protocol calls the stages of a request.
_STAGES = {
    "queue": "queue",
    "compute_input": "decode",
    "compute_infer": "inference",
    "compute_output": "rank",
}


@dataclass(slots=True)
class _Sum:
    """Requests, and their seconds."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float | None) -> None:
        if seconds is not None:
            self.count += 1
            self.seconds += seconds

    def to_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": round(1e9 * self.seconds)}


def _no_sums() -> dict[str, _Sum]:
    return {name: _Sum() for name in ("success", "fail", *_STAGES)}


@dataclass(slots=True)
class _Task:
    """One task's requests since the server began."""

    last: int = 0
    images: int = 0
    sums: dict[str, _Sum] = field(default_factory=_no_sums)


class Statistics:
    """Counts the requests of each task, of all protocols; a task that is unloaded is forgotten.

    Everything happens on the event loop.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, _Task] = {}

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """Nothing is counted before a request has ended."""

    def end(self, record: RequestRecord) -> None:
        """Count a request for a task that is known."""
        if record.task is None or (
            record.task not in self._tasks and len(self._tasks) >= MAX_TASKS
        ):
            return
        task = self._tasks.setdefault(record.task, _Task())
        succeeded = record.outcome == OK
        task.sums["success" if succeeded else "fail"].add(record.ended - record.began)
        if succeeded:
            task.last = round(1000 * time.time())
            task.images += record.asked_images
            for name, stage in _STAGES.items():
                task.sums[name].add(record.seconds(stage))

    def report(self, tasks: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
        """Return the statistics of tasks.

        Args:
            tasks: that are asked for.
            known: all that are served.
        """
        for gone in set(self._tasks) - set(known):
            del self._tasks[gone]
        return {"model_stats": [_describe(name, self._tasks.get(name, _Task())) for name in tasks]}


def _describe(name: str, task: _Task) -> dict[str, Any]:
    return {
        "name": name,
        "version": VERSION,
        "last_inference": task.last,
        "inference_count": task.images,
        # Batches belong to many tasks; these are requests.
        "execution_count": task.sums["success"].count,
        "inference_stats": {name: total.to_json() for name, total in task.sums.items()},
        "batch_stats": [],
    }
