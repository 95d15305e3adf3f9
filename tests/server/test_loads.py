"""Tasks that are loaded by their first request, while everybody else is served."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gatehub.errors import CorruptTensorsError, HubBusyError, MemoryBudgetError
from gatehub.server import ServerSettings, running_server
from tests.server.connections import until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import offline, pairs, picture


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@contextmanager
def serving(engine: Any, **settings: int) -> Iterator[httpx.Client]:
    with (
        running_server(engine, settings=ServerSettings(**settings)) as url,
        httpx.Client(base_url=url, trust_env=False, verify=False, timeout=30) as client,
    ):
        yield client


class Loading:
    """A load that waits for `go`, counts, and then raises or loads."""

    def __init__(self, engine: Any, task: str = "cars", *, error: Exception | None = None) -> None:
        self.began, self.go = threading.Semaphore(0), threading.Event()
        self.count = 0
        self.error = error

        def load() -> None:
            self.count += 1
            self.began.release()
            assert self.go.wait(30)
            if self.error is not None:
                raise self.error
            engine.load(task, ["bus", "van"], seed=1)

        engine.register(task, load)


def post(client: httpx.Client, task: str = "cars") -> httpx.Response:
    return client.post(f"/tasks/{task}", content=picture(1))


def states(client: httpx.Client) -> dict[str, str]:
    return {entry["task"]: entry["state"] for entry in client.get("/tasks").json()}


def test_a_registered_task_is_loaded_once_while_everybody_else_is_answered(engine: Any) -> None:
    loading = Loading(engine)
    with serving(engine) as client, ThreadPoolExecutor(4) as pool:
        assert states(client) == {"cars": "registered", "pets": "ready"}
        assert client.get("/tasks").json()[0] == {"task": "cars", "state": "registered"}
        waiting = [pool.submit(post, client) for _ in range(4)]
        assert loading.began.acquire(timeout=30)
        for route in ("/health", "/health/live", "/health/ready"):
            assert client.get(route).status_code == 200
        assert states(client) == {"cars": "loading", "pets": "ready"}
        assert post(client, "pets").status_code == 200
        assert not any(request.done() for request in waiting)
        loading.go.set()
        answers = [pairs(request.result().json()) for request in waiting]
        assert states(client) == {"cars": "ready", "pets": "ready"}
    assert answers == [offline(engine, "cars", picture(1))] * 4
    assert loading.count == 1


def test_who_waits_for_a_load_gives_up_at_the_deadline_and_the_load_goes_on(engine: Any) -> None:
    loading = Loading(engine)
    with serving(engine, deadline_s=1) as client:
        response = post(client)
        assert (response.status_code, response.json()["code"]) == (503, "deadline_exceeded")
        assert response.json()["task"] == "cars"
        assert states(client)["cars"] == "loading"
        loading.go.set()
        until(lambda: states(client)["cars"] == "ready")
        assert post(client).status_code == 200
    assert loading.count == 1


def test_a_failure_is_remembered_for_some_seconds(
    engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    loading = Loading(engine, error=CorruptTensorsError("gates.safetensors ends too early."))
    loading.go.set()
    with serving(engine, failed_load_s=600) as client:
        for _ in range(5):
            response = post(client)
            assert (response.status_code, response.json()["code"]) == (503, "adapter_unusable")
            assert "'cars' cannot be served just now: gates.saf" in response.json()["error"]
            assert "Retry-After" in response.headers
        assert states(client)["cars"] == "unavailable: gates.safetensors ends too early."
        assert post(client, "pets").status_code == 200
        assert client.get("/health/ready").status_code == 200
        engine.load("cars", ["bus", "van"], seed=1)
        assert post(client).status_code == 200  # another one is not the one that failed
        assert states(client)["cars"] == "ready"
    assert loading.count == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Task 'cars' cannot be served: gates.safetensors ends too early."
    ]


def test_after_that_it_is_tried_again(engine: Any) -> None:
    busy = HubBusyError("The hub is busy.", retry_after_s=9)
    loading = Loading(engine, error=busy)
    loading.go.set()
    with serving(engine, failed_load_s=0) as client:
        response = post(client)
        assert (response.status_code, response.json()["code"]) == (503, "hub_unreachable")
        assert response.headers["Retry-After"] == "9"
        loading.error = None
        assert post(client).status_code == 200
    assert loading.count == 2


def fail_in(engine: Any, error: Exception) -> Callable[[], int]:
    """Let tasks fail in the engine; return what counts how often they were asked."""
    runs = 0

    def run(*arguments: Any) -> Any:
        nonlocal runs
        runs += 1
        raise error

    engine.run = run
    return lambda: runs


def test_a_task_that_cannot_come_back_is_not_read_for_each_request(engine: Any) -> None:
    whole = engine.run
    runs = fail_in(engine, CorruptTensorsError("gates.safetensors ends too early."))
    with serving(engine, failed_load_s=600) as client:
        assert [post(client, "pets").status_code for _ in range(3)] == [503] * 3
        assert runs() == 1
        assert states(client)["pets"].startswith("unavailable: gates.safetensors")
        engine.run = whole
        engine.load("pets", ["cat", "dog"], seed=4)
        assert post(client, "pets").status_code == 200
        assert states(client)["pets"] == "ready"


def test_what_passes_by_itself_is_not_remembered(engine: Any) -> None:
    whole = engine.run
    fail_in(engine, MemoryBudgetError("Task 'pets' does not fit."))
    with serving(engine, failed_load_s=600) as client:
        response = post(client, "pets")
        assert (response.status_code, response.json()["code"]) == (503, "memory_budget")
        engine.run = whole
        assert post(client, "pets").status_code == 200


def test_who_waits_for_a_load_leaves_places_for_others(engine: Any) -> None:
    loading = Loading(engine)
    with serving(engine, max_requests=4) as client, ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(post, client) for _ in range(5)]
        until(lambda: sum(request.done() for request in waiting) == 3)
        refused = [request.result() for request in waiting if request.done()]
        assert {(r.status_code, r.json()["code"]) for r in refused} == {(503, "server_busy")}
        # The fifth may come while the other four still have places.
        assert any("'cars' is being loaded" in r.json()["error"] for r in refused)
        assert post(client, "pets").status_code == 200
        loading.go.set()
        assert [r.result().status_code for r in waiting if r not in refused].count(200) == 2


def test_a_load_that_never_ends_does_not_keep_the_server(engine: Any) -> None:
    loading = Loading(engine)
    with serving(engine, deadline_s=1) as client:
        assert post(client).status_code == 503
    loading.go.set()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("gatehub-")])
