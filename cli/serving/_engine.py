"""The engine of `gatehub serve`: made in the command's own process, or in each of several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub.cli._options import open_backbone

if TYPE_CHECKING:
    from gatehub.cli._output import Advance
    from gatehub.errors import GatehubError
    from gatehub.runtime.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """What an engine is made of.

    Args:
        places: the folder of each task.
        task: one of them, whose backbone it is unless another one is named.
        backbone: its name, or None.
        weights: of the backbone, or None.
        device: where it computes.
        dtype: see `Engine`.
        folded_mb: likewise, in megabytes.
        gates_mb: likewise.
        keep_going: whether to leave out tasks that cannot be served.
        log_format: of the process's log.
    """

    places: Mapping[str, Path]
    task: str
    backbone: str | None
    weights: Path | None
    device: str
    dtype: str
    folded_mb: int | None
    gates_mb: int | None
    keep_going: bool
    log_format: str

    def open(
        self, left_out: Callable[[str, GatehubError], None] | None, advance: Advance
    ) -> Engine:
        """Load the backbone and all tasks.

        Args:
            left_out: is told of tasks that cannot be served; None to refuse them.
            advance: is told how far it is.

        Raises:
            GatehubError: a task, or all of them, cannot be served.
        """
        from gatehub.adapter import Adapter
        from gatehub.errors import GatehubError
        from gatehub.runtime.engine import Engine

        adapter = Adapter.load(self.places[self.task])
        engine = Engine(
            open_backbone(adapter, self.backbone, self.weights, self.device),
            dtype=self.dtype,
            folded_bytes=None if self.folded_mb is None else self.folded_mb * 1_000_000,
            gates_bytes=None if self.gates_mb is None else self.gates_mb * 1_000_000,
        )
        for done, (task, place) in enumerate(self.places.items(), start=1):
            try:
                engine.load(task, place)
            except GatehubError as error:
                if left_out is None or (done == len(self.places) and not engine.tasks()):
                    raise
                left_out(str(place), error)
            advance(done, len(self.places))
        return engine

    def __call__(self, note: Callable[[str], None]) -> Engine:
        """Make an engine in a process of its own, which the command's settings have not reached."""
        from gatehub.cli._output import write_anywhere
        from gatehub.runtime.heap import keep_freed_memory
        from gatehub.server.observing.log_format import start_logging

        write_anywhere()
        keep_freed_memory()
        start_logging(self.log_format, sys.stderr)
        left_out = (
            (lambda place, error: note(say_left_out(place, error))) if self.keep_going else None
        )
        return self.open(left_out, lambda done, total: None)


def say_left_out(place: str, error: GatehubError) -> str:
    """Return the sentence about an adapter that is not served."""
    return f"Left out '{place}': {error}"
