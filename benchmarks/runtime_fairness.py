"""How long a quiet task waits while another one floods the queues."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from benchmarks.runtime_tasks import make_adapter, random_images
from gatehub.backbone import Backbone
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.engine import Engine
from gatehub.runtime.scheduler import BatchSettings

QUIET = 4
PAUSE_S = 0.05
SETTINGS = BatchSettings(max_batch=8, max_wait_ms=5, max_queue=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """How long single images waited for their answers.

    Args:
        p50_ms: half of them no longer.
        p99_ms: 99 of 100 no longer.
    """

    p50_ms: float
    p99_ms: float


def measure_tails(backbone: Backbone, *, requests: int) -> dict[str, Tail]:
    """Ask quiet tasks for one image at a time: alone, beside a flood, and in one queue with it.

    Args:
        backbone: whose tasks are asked.
        requests: of each quiet task.
    """
    engine = Engine(backbone, dtype="float32")
    for name in ("flood", *(f"quiet{number}" for number in range(QUIET))):
        engine.load(name, make_adapter(backbone, seed=len(engine.tasks())))
        engine.prefetch(name)
    image = random_images(1, backbone)[0]
    quiet = [f"quiet{number}" for number in range(QUIET)]
    with Batcher(engine, settings=SETTINGS) as batcher:
        _ask(batcher, quiet, image, 3)
        tails = {"no flood": _ask(batcher, quiet, image, requests)}
        with _flood(batcher, image):
            tails["flood, queues of their own"] = _ask(batcher, quiet, image, requests)
            # Who asks for the flooding task itself waits behind all that came before.
            tails["flood, one queue"] = _ask(batcher, ["flood"] * QUIET, image, requests)
    return tails


@contextmanager
def _flood(batcher: Batcher, image: Tensor) -> Iterator[None]:
    """Keep a task's queue full for the length of a with block, but for one place a client."""
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            if batcher.depths().get("flood", 0) < SETTINGS.max_queue - QUIET:
                batcher.submit("flood", image)
            else:
                over.wait(0.002)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _ask(batcher: Batcher, tasks: list[str], image: Tensor, requests: int) -> Tail:
    """Ask for each task from a client of its own, one image after the other."""
    waited: list[float] = []

    def ask(task: str) -> None:
        for _ in range(requests):
            began = time.perf_counter()
            batcher.submit(task, image).result()
            waited.append(time.perf_counter() - began)
            time.sleep(PAUSE_S)

    clients = [threading.Thread(target=ask, args=(task,)) for task in tasks]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    p50, p99 = np.percentile(np.array(waited) * 1e3, [50, 99])
    return Tail(p50_ms=float(p50), p99_ms=float(p99))
