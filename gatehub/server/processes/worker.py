"""One process of several that serve the same address: what it does, and what it says."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import torch

from gatehub.errors import GatehubError
from gatehub.server.listening import Listener
from gatehub.server.observing.metrics import Figures, add_label
from gatehub.server.serve import make_server
from gatehub.server.settings import ServerSettings

if TYPE_CHECKING:
    from gatehub.runtime.engine import Engine

# For the figures of the others; a scrape that waits longer than this gets those that came.
_GATHER_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What each process serves.

    Args:
        make_engine: called once in each process, with a function that takes notes for who started
            the server. A class or function of a module, since a new process has to find it.
        workers: how many processes there are.
        url: of the server, without a prefix.
        settings: of each.
        path_prefix: see `create_app`.
    """

    make_engine: Callable[[Callable[[str], None]], Engine]
    workers: int
    url: str
    settings: ServerSettings
    path_prefix: str


def run_worker(number: int, plan: WorkerPlan, opened: socket.socket, channel: Connection) -> None:
    """Serve, in a process of one's own, until the other end of a channel says or is no more.

    Args:
        number: of the worker.
        plan: what to serve.
        opened: the socket that all workers accept from.
        channel: to the process that started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; one of them decides
    line = _Line(channel)
    try:
        _share_cores(plan.workers)
        engine = plan.make_engine(lambda note: line.send("note", note))
    except GatehubError as error:
        line.send("failed", error.message, error.hint)
        return
    server = make_server(
        engine,
        Listener(opened, plan.url),
        plan.settings,
        plan.path_prefix,
        None,
        lambda url: line.send("ready", url),
        gather=lambda own: _gather(line, own, number),
    )
    server.supervised = True
    metrics = server.config.app.state.metrics  # type: ignore[union-attr]
    line.listen(stop=server.stop, report=lambda: add_label(metrics.figures(), "worker", number))
    server.run(sockets=[opened])
    # All is answered and told. To take torch apart would hold up the drain for seconds.
    logging.shutdown()
    os._exit(0)


async def _gather(line: _Line, own: Figures, number: int) -> Figures:
    """Return the figures of all workers, each with its number."""
    others = await asyncio.to_thread(line.ask)
    return [*add_label(own, "worker", number), *itertools.chain.from_iterable(others)]


def _share_cores(workers: int) -> None:
    """Leave each worker its part of the threads that torch would take, unless told how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))


class _Line:
    """A worker's end of the channel; any of its threads may speak.

    Args:
        channel: to the process that started this one.
    """

    def __init__(self, channel: Connection) -> None:
        self._channel = channel
        self._speaking = threading.Lock()
        self._asked: dict[int, Future[list[Figures]]] = {}
        self._numbers = itertools.count()

    def send(self, *message: Any) -> None:
        """Say something; to nobody, if the other end has gone."""
        # `listen` meets the end, too, and stops the server.
        with self._speaking, suppress(OSError):
            self._channel.send(message)

    def ask(self) -> list[Figures]:
        """Return the figures of the other workers, or of none if they do not come in time."""
        number, answer = next(self._numbers), Future[list[Figures]]()
        self._asked[number] = answer
        self.send("ask", number)
        try:
            return answer.result(_GATHER_S)
        except FutureTimeoutError:
            return []
        finally:
            del self._asked[number]

    def listen(self, *, stop: Callable[[], None], report: Callable[[], Figures]) -> None:
        """Do what the other end says, in a thread; once it is gone, stop.

        Args:
            stop: ends the server.
            report: returns this worker's figures.
        """

        def work() -> None:
            while True:
                try:
                    what, *more = self._channel.recv()
                except (EOFError, OSError):
                    return stop()
                if what == "stop":
                    stop()
                elif what == "report":
                    self.send("figures", more[0], report())
                elif what == "figures" and (answer := self._asked.get(more[0])) is not None:
                    answer.set_result(more[1])

        threading.Thread(target=work, name="gatehub-supervised", daemon=True).start()
