"""A server of several processes: each of them may die, and none of them is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from gatehub.errors import ServerError
from gatehub.server import listen, serve_workers
from gatehub.server.observing.metrics import Family, add_label, render_metrics
from tests.server import connections
from tests.server.pictures import picture

# A process imports torch before it answers, on a machine that may have other things to do.
until = partial(connections.until, seconds=300)
ROOT = Path(__file__).parents[3]


@contextmanager
def program(
    workers: int, environment: dict[str, str] | None = None, **settings: int
) -> Iterator[subprocess.Popen[str]]:
    name = "tests.server.processes.workers_program"
    command = [sys.executable, "-m", name, str(workers), json.dumps(settings)]
    pipe = subprocess.PIPE
    variables = {**os.environ, **(environment or {})}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env=variables,
        start_new_session=True,
    ) as started:
        try:
            yield started
        finally:
            started.kill()
            if is_left(started.pid):
                os.killpg(started.pid, signal.SIGKILL)


def read(started: subprocess.Popen[str], what: str) -> str:
    assert started.stdout is not None
    line = started.stdout.readline()
    assert line.startswith(what), (line, started.stderr and started.stderr.read())
    return line.removeprefix(what).strip()


def start(started: subprocess.Popen[str]) -> str:
    assert read(started, "note") == "look at this"  # once, though each says it
    return read(started, "ready")


def ask(url: str) -> int:
    """Return the process that answers."""
    response = httpx.post(f"{url}/tasks/pets", content=picture(1), verify=False, timeout=300)
    assert response.status_code == 200, response.text
    return int(response.json()[0]["label"].split()[1])


def processes(url: str) -> set[int]:
    """The processes that answer, as far as a few requests find them."""
    return {ask(url) for _ in range(8)}


def is_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_several_answer_one_that_is_killed_is_replaced_and_none_is_left() -> None:
    with program(2) as started:
        url = start(started)
        with ThreadPoolExecutor(8) as pool:
            before: set[int] = set()
            until(lambda: before.update(pool.map(ask, [url] * 8)) or len(before) == 2)  # type: ignore[func-returns-value]
            text = httpx.get(f"{url}/metrics", verify=False).text
            for name in ("gatehub_requests_total", "process_resident_memory_bytes"):
                lines = [line for line in text.splitlines() if line.startswith(name)]
                assert {line.partition('worker="')[2][0] for line in lines} == {"0", "1"}
            assert text.count("# TYPE gatehub_requests_total counter") == 1
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            after: set[int] = set()
            until(lambda: after.update(processes(url)) or len(after - before) == 1)  # type: ignore[func-returns-value]
        started.send_signal(signal.SIGTERM)
        output, errors = started.communicate(timeout=300)
        assert (started.returncode, output) == (0, "returned\n")
        assert "ended (exit status -9); another starts in 0.5 s" in errors
        until(lambda: not is_left(started.pid))


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the first", "all"])
def test_what_was_accepted_is_answered_after_a_signal(whom: str) -> None:
    with program(2, {"HOLD": "1"}) as started, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, start(started))
        read(started, "computing")
        if whom == "all":  # as systemd does, and a terminal with its own
            os.killpg(started.pid, signal.SIGINT)
            os.killpg(started.pid, 0)
        else:
            started.send_signal(signal.SIGTERM)
        output, errors = started.communicate(timeout=300)
        assert answer.result() > 0
        assert (started.returncode, output, errors) == (0, "returned\n", "")
        until(lambda: not is_left(started.pid))


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once() -> None:
    with program(2, {"HOLD": "600"}, drain_timeout_s=600) as started:
        url = start(started)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask, url)
            read(started, "computing")
            started.send_signal(signal.SIGTERM)
            until(lambda: httpx.get(f"{url}/health/ready", verify=False).status_code == 503)
            started.send_signal(signal.SIGTERM)
            assert started.wait(300) == -signal.SIGTERM
            assert isinstance(answer.exception(30), httpx.TransportError)
        until(lambda: not is_left(started.pid))


@pytest.mark.slow
def test_workers_end_with_who_started_them() -> None:
    with program(2) as started:
        start(started)
        started.kill()
        started.wait()
        until(lambda: not is_left(started.pid))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variable", "says"),
    [("REFUSE", "It will not do. Try another."), ("DIE", "ended before it could serve")],
)
def test_a_worker_that_cannot_begin_ends_all(variable: str, says: str) -> None:
    with program(2, {variable: "1"}) as started:
        _, errors = started.communicate(timeout=300)
        assert started.returncode == 1
        assert says in errors
        until(lambda: not is_left(started.pid))


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, None])
def test_a_number_of_workers_that_is_none_is_refused(workers: object) -> None:
    with listen() as listener, pytest.raises(ServerError, match="whole number of at least 1"):
        serve_workers(
            lambda note: pytest.fail(note),
            workers=workers,  # type: ignore[arg-type]
            listener=listener,
            on_ready=lambda url: pytest.fail(url),
        )


def test_figures_of_several_processes_are_told_apart_under_one_name() -> None:
    one = [Family("a", "What.", "counter", [("a_total", {"task": "x"}, 1.0)])]
    figures = [*add_label(one, "worker", 0), *add_label(one, "worker", 1)]
    text, _ = render_metrics(figures, "")
    assert text.decode().splitlines() == [
        "# HELP a_total What.",
        "# TYPE a_total counter",
        'a_total{task="x",worker="0"} 1.0',
        'a_total{task="x",worker="1"} 1.0',
    ]
