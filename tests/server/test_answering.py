"""Batches behind HTTP: who waits for whom, and that everybody gets an answer or an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.runtime.batcher import Batcher
from gatehub.server import ServerSettings, running_server
from tests.server.connections import until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import offline, pairs, picture

# Longer than any test may take: who waits for it fails.
FOREVER_MS = 60_000


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"], cars=["bus", "van"])


@contextmanager
def serving(engine: Any, **settings: int) -> Iterator[httpx.Client]:
    with (
        running_server(engine, settings=ServerSettings(**settings)) as url,
        httpx.Client(base_url=url, trust_env=False, verify=False, timeout=30) as client,
    ):
        yield client


class Decoding:
    """Holds the decoding of pictures of one width until `go` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, width: int) -> None:
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        open_image = Preprocessing.open

        def hold(preprocessing: Preprocessing, source: Any, **options: Any) -> Any:
            image = open_image(preprocessing, source, **options)
            if image.width == width:
                self.began.release()
                assert self.go.wait(30)
            return image

        monkeypatch.setattr(Preprocessing, "open", hold)


def test_a_lonely_request_waits_for_nobody(engine: Any) -> None:
    with serving(engine, max_wait_ms=FOREVER_MS, deadline_s=25) as client:
        for seed in range(3):
            response = client.post("/tasks/pets", content=picture(seed))
            assert pairs(response.json()) == offline(engine, "pets", picture(seed))


def test_images_wait_for_those_of_their_task_that_are_being_decoded(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    run = engine.run

    def count(task: str, images: Any) -> Any:
        sizes.append((task, len(images)))
        return run(task, images)

    engine.run = count
    slow = Decoding(monkeypatch, width=99)
    with (
        serving(engine, max_wait_ms=FOREVER_MS, threads=4) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        last = pool.submit(client.post, "/tasks/pets", content=picture(1, size=(99, 9)))
        assert slow.began.acquire(timeout=30)
        first = pool.submit(client.post, "/tasks/pets", content=picture(2))
        # Another task's image does not wait: nobody who could join it is on the way.
        assert client.post("/tasks/cars", content=picture(3)).status_code == 200
        assert not first.done()
        slow.go.set()
        answers = [first.result(), last.result()]
    assert sorted(sizes) == [("cars", 1), ("pets", 2)]
    assert pairs(answers[0].json()) == offline(engine, "pets", picture(2))
    assert pairs(answers[1].json()) == offline(engine, "pets", picture(1, size=(99, 9)))


def test_nobody_waits_for_an_image_that_turned_out_to_be_none(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go = threading.Event(), threading.Event()
    transform = Preprocessing.transform

    def hold(preprocessing: Preprocessing, **options: Any) -> Any:
        def apply(source: bytes) -> Any:
            if source == b"no image":
                began.set()
                assert go.wait(30)
            return transform(preprocessing, **options)(source)

        return apply

    monkeypatch.setattr(Preprocessing, "transform", hold)
    with serving(engine, max_wait_ms=FOREVER_MS) as client, ThreadPoolExecutor(2) as pool:
        bad = pool.submit(client.post, "/tasks/pets", content=b"no image")
        assert began.wait(30)
        good = pool.submit(client.post, "/tasks/pets", content=picture(1))
        assert client.get("/health").status_code == 200  # the event loop decodes nothing
        go.set()
        assert (bad.result().status_code, good.result().status_code) == (422, 200)


def test_requests_that_come_while_a_batch_runs_are_the_next_one(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batchers: list[Batcher] = []
    make = Batcher.__init__

    def keep(batcher: Batcher, *arguments: Any, **options: Any) -> None:
        make(batcher, *arguments, **options)
        batchers.append(batcher)

    monkeypatch.setattr(Batcher, "__init__", keep)
    engine.hold()
    with serving(engine, max_batch=8) as client, ThreadPoolExecutor(9) as pool:
        first = pool.submit(client.post, "/tasks/pets", content=picture(0))
        assert engine.entered.acquire(timeout=30)
        others = [pool.submit(client.post, "/tasks/pets", content=picture(n)) for n in range(8)]
        until(lambda: batchers[0].depths() == {"pets": 8})
        engine.release()
        assert {request.result().status_code for request in (first, *others)} == {200}
    assert engine.runs == 2


def test_a_deadline_ends_what_waits_and_what_runs(engine: Any) -> None:
    engine.hold()
    with serving(engine, deadline_s=1, retry_after_s=3) as client, ThreadPoolExecutor(2) as pool:
        requests = [pool.submit(client.post, "/tasks/pets", content=picture(n)) for n in range(2)]
        responses = [request.result() for request in requests]
        engine.release()
        assert client.post("/tasks/pets", content=picture(1)).status_code == 200
    for response in responses:
        assert response.status_code == 503
        assert response.json()["code"] == "deadline_exceeded"
        assert response.headers["Retry-After"] == "3"
        assert "'pets' was not answered within 1 s" in response.json()["error"]


def test_a_thread_that_died_is_replaced(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    work, dead = Batcher._work, threading.Event()

    def die_once(batcher: Batcher) -> None:
        if dead.is_set():
            work(batcher)
        dead.set()

    monkeypatch.setattr(Batcher, "_work", die_once)
    with serving(engine) as client:
        for seed in range(3):
            assert client.post("/tasks/pets", content=picture(seed)).status_code == 200
    assert dead.is_set()


def test_an_error_of_the_engines_own_is_answered_and_the_next_request_too(engine: Any) -> None:
    run = engine.run

    def fail_once(*arguments: Any) -> Any:
        engine.run = run
        raise SystemExit(1)

    engine.run = fail_once
    with serving(engine) as client:
        assert client.post("/tasks/pets", content=picture(1)).status_code == 500
        assert client.post("/tasks/pets", content=picture(1)).status_code == 200
