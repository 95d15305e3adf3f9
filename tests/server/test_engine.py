"""The server over the real engine: what it answers is what the engine computes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.problem import ONE_LABEL
from gatehub.runtime.engine import Engine
from gatehub.server import running_server
from tests.server.pictures import offline, pairs, picture
from tests.tiny import make_trained

TASKS = {"birds": ("wren", "crow"), "cars": ("bus", "van", "kart"), "digits": tuple("0123456789")}
# The server computes what `offline` does; threads may add numbers up in another order.
TOLERANCE = 1e-6


def adapter(backbone: Backbone, task: str, *, seed: int) -> Adapter:
    return Adapter.from_model(make_trained(backbone, labels=TASKS[task], seed=seed), task=task)


@pytest.fixture
def engine(tiny_backbone: Backbone) -> Engine:
    engine = Engine(tiny_backbone)
    for seed, task in enumerate(TASKS):
        engine.load(task, adapter(tiny_backbone, task, seed=seed))
    return engine


@pytest.fixture
def client(engine: Engine) -> Iterator[httpx.Client]:
    with running_server(engine) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def assert_same(
    answer: list[tuple[str, float]], expected: list[tuple[str, float]], *, context: str
) -> None:
    assert [label for label, _ in answer] == [label for label, _ in expected], context
    worst = max(abs(a - b) for (_, a), (_, b) in zip(answer, expected, strict=True))
    assert worst <= TOLERANCE, f"{context}: scores differ by {worst:.3g}"


def test_health_and_tasks_describe_the_engine(client: httpx.Client, engine: Engine) -> None:
    health = client.get("/health").json()
    assert health == {"status": "ok", "tasks": 3, "backbone": "resnet18"}
    for listed, info in zip(client.get("/tasks").json(), engine.tasks(), strict=True):
        assert (listed["task"], listed["digest"]) == (info.task, info.digest)
        assert listed["labels"] == list(info.labels)
        assert listed["backbone"] == "resnet18"


def test_an_engine_serves_the_thresholds_of_an_adapter(tiny_backbone: Backbone) -> None:
    engine = Engine(tiny_backbone)
    engine.load("birds", adapter(tiny_backbone, "birds", seed=0))
    engine.load("more", adapter(tiny_backbone, "cars", seed=1).with_thresholds([0.25, 0.5, 1.0]))
    assert engine.task("birds").problem == ONE_LABEL
    assert engine.task("more").problem.thresholds == (0.25, 0.5, 1.0)


def test_interleaved_tasks_answer_as_the_engine_does(client: httpx.Client, engine: Engine) -> None:
    requests = [(task, picture(seed)) for seed in range(5) for task in TASKS]
    expected = [offline(engine, task, encoded) for task, encoded in requests]
    assert len({tuple(scores) for scores in expected}) == len(requests)

    def ask(request: tuple[str, bytes]) -> httpx.Response:
        task, encoded = request
        return client.post(f"/tasks/{task}", content=encoded, params={"top_k": 10})

    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(ask, requests))
    for (task, _), response, scores in zip(requests, responses, expected, strict=True):
        assert response.headers["X-Gatehub-Digest"] == engine.task(task).digest
        assert_same(pairs(response.json()), scores, context=task)


def test_a_task_replaced_under_load_is_never_half_replaced(
    client: httpx.Client, engine: Engine, tiny_backbone: Backbone
) -> None:
    encoded = picture(1)
    versions = [adapter(tiny_backbone, "digits", seed=seed) for seed in range(3)]
    expected = {}
    for version in versions:
        engine.load("digits", version)
        expected[version.digest] = offline(engine, "digits", encoded)
    assert len(expected) == 3

    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(client.post, "/tasks/digits?top_k=10", content=encoded) for _ in range(24)
        ]
        while not all(request.done() for request in asked):
            for version in versions:
                engine.load("digits", version)
    generations = set()
    for request in asked:
        headers = request.result().headers
        generations.add(headers["X-Gatehub-Generation"])
        digest = headers["X-Gatehub-Digest"]
        assert_same(pairs(request.result().json()), expected[digest], context=digest)
    assert len(generations) > 1


def test_an_unknown_task_names_the_others(client: httpx.Client) -> None:
    response = client.post("/tasks/cats", content=picture(1))
    assert response.status_code == 404
    assert "'cats'" in response.json()["error"]
    assert "birds, cars, digits" in response.json()["error"]
