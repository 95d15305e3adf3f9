"""A worker as its supervisor sees it: a process, and a channel to it."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from gatehub.server.listening import Listener
from gatehub.server.processes.worker import WorkerPlan, run_worker
from gatehub.server.workers import Workers


@dataclass(slots=True, kw_only=True, eq=False)
class Process:
    """A worker.

    Args:
        process: of the system.
        channel: to it.
        post: sends to it in a thread: a process that does not read must not hold up the others.
        started: when, on the monotonic clock.
        ready: whether it has begun to answer.
        owes: whether it has not yet told its figures.
    """

    process: SpawnProcess
    channel: Connection
    post: Workers
    started: float
    ready: bool = False
    owes: bool = False

    def send(self, *message: Any) -> None:
        """Say something; to nobody, if it has gone."""

        def send() -> None:
            with suppress(OSError, ValueError):
                self.channel.send(message)

        self.post.submit(send)

    def bury(self, *, patience_s: float) -> int | None:
        """Wait for its end, or bring it about; return its exit status."""
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()
        self.post.close()
        self.channel.close()
        return self.process.exitcode


def start_process(number: int, plan: WorkerPlan, listener: Listener) -> Process:
    """Start a worker, in a new interpreter."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=run_worker,
        args=(number, plan, listener.socket, theirs),
        name=f"gatehub-worker-{number}",
        daemon=True,
    )
    with _interrupts_blocked():
        process.start()
    theirs.close()
    post = Workers(1, name=f"gatehub-post-{number}")
    return Process(process=process, channel=ours, post=post, started=time.monotonic())


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Keep a terminal's Ctrl-C from a process that is started, which could not say anything."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
