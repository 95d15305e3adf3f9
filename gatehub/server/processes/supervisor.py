"""Starts the processes of a server, replaces those that die, and ends with them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from types import FrameType

from gatehub.errors import ServerError
from gatehub.server.listening import Listener
from gatehub.server.observing.metrics import Figures
from gatehub.server.processes.process import Process, start_process
from gatehub.server.processes.worker import WorkerPlan

_LOG = logging.getLogger(__name__)

# What follows a worker that dies again and again.
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STEADY_S = 60.0
# Beyond the time that a worker has to drain, until it is killed.
_PATIENCE_S = 10.0
_REPORT_S = 1.0
_ENDING = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True, kw_only=True, eq=False)
class _Question:
    """A worker that wants the others' figures."""

    asker: int
    number: int
    waiting: set[int]
    until: float
    figures: list[Figures] = field(default_factory=list)


class Supervisor:
    """Keeps a number of workers running behind one address.

    Processes are spawned and never forked, since threads of torch do not survive a fork. All accept
    from the socket that was opened here, so connections that wait are lost with none of them.

    Args:
        plan: what each of them serves.
        listener: the address.
        on_ready: called once with the server's URL, as soon as all of them answer.
        on_note: is told what they have to say while they start, each sentence once.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        listener: Listener,
        *,
        on_ready: Callable[[str], None],
        on_note: Callable[[str], None],
    ) -> None:
        self._plan, self._listener = plan, listener
        self._on_ready, self._on_note = on_ready, on_note
        self._workers: dict[int, Process] = {}
        self._restarts: dict[int, float] = {}  # when, on the clock
        self._pauses = dict.fromkeys(range(plan.workers), _FIRST_PAUSE_S)
        self._questions: list[_Question] = []
        self._notes: set[str] = set()
        self._up = False
        self._signals = 0
        self._end = float("inf")
        self._close_at = float("inf")

    def run(self) -> None:
        """Start the workers, and return once the last has ended after a signal.

        Raises:
            ServerError: one of them could not begin to serve.
        """
        wake, self._bell = multiprocessing.Pipe(duplex=False)
        try:
            with self._catching_signals():
                for number in range(self._plan.workers):
                    self._start(number)
                while self._workers or not self._stopping:
                    self._wait(wake)
                    self._look_at_time()
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.join()

    @property
    def _stopping(self) -> bool:
        return self._end < float("inf")

    def _wait(self, wake: Connection) -> None:
        """Wait for the next thing that happens, and see to it."""
        asked = (question.until for question in self._questions)
        times = [*self._restarts.values(), *asked, self._end, self._close_at]
        pause = min(times) - time.monotonic()
        channels = {worker.channel: number for number, worker in self._workers.items()}
        ends = {worker.process.sentinel: number for number, worker in self._workers.items()}
        timeout = None if pause == float("inf") else max(0.0, pause)
        happened = wait([wake, *channels, *ends], timeout)
        for what in happened:
            if what is wake:
                wake.recv()
                self._stop()
            elif what in channels:
                self._hear(channels[what])
        for what in happened:
            if what in ends and ends[what] in self._workers:
                self._bury(ends[what])

    def _look_at_time(self) -> None:
        now = time.monotonic()
        for number in [n for n, when in self._restarts.items() if when <= now]:
            del self._restarts[number]
            self._start(number)
        for question in [q for q in self._questions if q.until <= now]:
            self._answer(question)
        if self._close_at <= now:  # the workers' own are closed, and nobody accepts any more
            self._listener.socket.close()
            self._close_at = float("inf")
        if self._end <= now:
            for worker in self._workers.values():
                worker.process.kill()
            self._end = now + _PATIENCE_S

    def _start(self, number: int) -> None:
        self._workers[number] = start_process(number, self._plan, self._listener)

    def _hear(self, number: int) -> None:
        """Read what a worker has to say."""
        worker = self._workers[number]
        try:
            what, *more = worker.channel.recv()
        except (EOFError, OSError):  # it is about to end
            self._bury(number)
            return
        if what == "note" and more[0] not in self._notes:
            self._notes.add(more[0])
            self._on_note(more[0])
        elif what == "ready":
            worker.ready = True
            ready = sum(each.ready for each in self._workers.values())
            if not self._up and ready == self._plan.workers:
                self._up = True
                self._on_ready(more[0])
        elif what == "failed":
            if not self._up:
                raise ServerError(more[0], hint=more[1])
            _LOG.error("Worker %d cannot serve again: %s", number, more[0])
        elif what == "ask":
            self._ask_others(number, more[0])
        elif what == "figures":
            worker.owes = False
            for question in [q for q in self._questions if number in q.waiting]:
                question.figures.append(more[1])
                question.waiting.discard(number)
                if not question.waiting:
                    self._answer(question)

    def _ask_others(self, asker: int, number: int) -> None:
        others = {n for n, worker in self._workers.items() if worker.ready and n != asker}
        until = time.monotonic() + _REPORT_S
        question = _Question(asker=asker, number=number, waiting=others, until=until)
        self._questions.append(question)
        for other in others:
            worker = self._workers[other]
            if not worker.owes:  # or it may hang, and what it is sent would pile up
                worker.owes = True
                worker.send("report", number)
        if not others:
            self._answer(question)

    def _answer(self, question: _Question) -> None:
        self._questions.remove(question)
        if question.asker in self._workers:
            self._workers[question.asker].send("figures", question.number, question.figures)

    def _bury(self, number: int) -> None:
        """See to it that a worker that has ended is followed by another one."""
        worker = self._workers.pop(number)
        status = worker.bury(patience_s=_PATIENCE_S)
        for question in [q for q in self._questions if number in q.waiting]:
            question.waiting.discard(number)
            if not question.waiting:
                self._answer(question)
        if self._stopping:
            return
        if not self._up:
            raise ServerError(
                f"A worker of the server ended before it could serve (exit status {status}).",
                hint="Start with --workers 1 to see why.",
            )
        now = time.monotonic()
        if now - worker.started > _STEADY_S:
            self._pauses[number] = _FIRST_PAUSE_S
        pause = self._pauses[number]
        self._pauses[number] = min(2 * pause, _LONGEST_PAUSE_S)
        self._restarts[number] = now + pause
        _LOG.error(
            "Worker %d ended (exit status %s); another starts in %g s.", number, status, pause
        )

    def _stop(self) -> None:
        """Have all workers finish what they have accepted."""
        if self._stopping:
            return
        settings = self._plan.settings
        patience = settings.drain_grace_s + settings.drain_timeout_s + _PATIENCE_S
        self._end = time.monotonic() + patience
        self._close_at = time.monotonic() + settings.drain_grace_s
        self._restarts.clear()
        for worker in self._workers.values():
            if worker.ready:
                worker.send("stop")
            else:
                worker.process.kill()

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._handle) for number in _ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Begin to stop at a first signal; at a second one end everything at once."""
        self._signals += 1
        if self._signals == 1:
            self._bell.send(number)
            return
        for worker in list(self._workers.values()):
            worker.process.kill()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
