from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch
from PIL import Image

from gatehub.errors import ServerError
from gatehub.problem import Problem
from gatehub.runtime.engine import Answer
from gatehub.server import ServerSettings, create_app, running_server
from tests.server.connections import connection, until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import encode, offline, pairs, picture

SETTINGS = ServerSettings(max_body_bytes=50_000, max_pixels=50_000, threads=2)
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture
def engine() -> Any:
    return LinearEngine(digits=DIGITS, pets=["cat", "dog", "Größe"])


@pytest.fixture
def client(engine: Any) -> Iterator[httpx.Client]:
    with (
        running_server(engine, settings=SETTINGS) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


def refused(response: httpx.Response, status: int, code: str) -> str:
    """Check a refusal's form and return its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"error", "code"}
    assert answer["code"] == code
    assert "Traceback" not in response.text
    sentence = answer["error"]
    assert isinstance(sentence, str)
    return sentence


def test_health_counts_tasks_and_names_the_backbone(client: httpx.Client, engine: Any) -> None:
    assert client.get("/health").json() == {"status": "ok", "tasks": 2, "backbone": "linear"}
    engine.unload("pets")
    assert client.get("/health").json()["tasks"] == 1


def test_every_route_begins_with_the_prefix(engine: Any) -> None:
    with (
        running_server(engine, path_prefix="/vision/v1/") as url,
        httpx.Client(trust_env=False, verify=False) as client,
    ):
        assert url.endswith("/vision/v1")
        for route in ("/health", "/health/live", "/health/ready", "/tasks"):
            assert client.get(f"{url}{route}").status_code == 200
            assert client.get(url.removesuffix("/vision/v1") + route).status_code == 404
        assert client.post(f"{url}/tasks/pets", content=picture(1)).status_code == 200
        sentence = refused(client.get(f"{url}/nothing"), 404, "route_not_found")
        assert "Try GET /vision/v1/health, GET /vision/v1/tasks" in sentence


@pytest.mark.parametrize("prefix", ["vision", "/a b", "//", "/a//b", "/{task}", "/é", "/a?b", None])
def test_a_prefix_that_is_no_path_is_refused(engine: Any, prefix: Any) -> None:
    with pytest.raises(ServerError, match=r"path prefix is .*such as /vision"):
        create_app(engine, path_prefix=prefix)


def test_a_server_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_a_server_that_stops_is_live_and_not_ready(engine: Any) -> None:
    app = create_app(engine)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            routes = ("/health/live", "/health", "/health/ready")
            return [await client.get(route) for route in routes]

    app.state.lifecycle.stop()
    live, health, ready = asyncio.run(ask())
    assert (live.status_code, health.status_code) == (200, 200)
    assert "stopping" in refused(ready, 503, "not_ready")
    assert "Retry-After" in ready.headers


def test_tasks_describe_what_is_loaded(client: httpx.Client, engine: Any) -> None:
    digits, pets = client.get("/tasks").json()
    assert (digits["task"], digits["labels"]) == ("digits", DIGITS)
    assert pets["labels"] == ["cat", "dog", "Größe"]
    assert pets["digest"] == engine.task("pets").digest
    assert pets["generation"] == 2
    assert pets["state"] == "ready"
    assert pets["preprocessing"]["input_size"] == [3, 16, 16]


def test_a_multi_label_task_says_so_and_answers_by_its_thresholds(
    client: httpx.Client, engine: Any
) -> None:
    before = client.get("/tasks").json()
    engine.decide("pets", Problem(thresholds=(0.0,) * len(engine.task("pets").labels)))
    digits, pets = client.get("/tasks").json()
    assert digits == before[0]
    assert "problem" not in digits
    thresholds = [0.0] * len(pets["labels"])
    assert pets == before[1] | {"problem": {"type": "multi-label", "thresholds": thresholds}}
    answer = client.post("/tasks/pets", content=picture(1)).json()
    assert {entry["label"] for entry in answer} == set(pets["labels"])
    assert answer == client.post("/tasks/pets?function_to_apply=sigmoid", content=picture(1)).json()
    engine.decide("pets", Problem(thresholds=(1.0,) * len(pets["labels"])))
    assert client.post("/tasks/pets", content=picture(1)).json() == []
    assert len(client.post("/tasks/pets?top_k=1", content=picture(1)).json()) == 1


def test_an_answer_is_the_offline_one_best_first(client: httpx.Client, engine: Any) -> None:
    encoded = picture(1)
    response = client.post("/tasks/digits", content=encoded, params={"top_k": 10})
    assert response.status_code == 200
    assert pairs(response.json()) == offline(engine, "digits", encoded)
    info = engine.task("digits")
    assert response.headers["X-Gatehub-Digest"] == info.digest
    assert response.headers["X-Gatehub-Generation"] == str(info.generation)


def test_labels_keep_their_letters(client: httpx.Client) -> None:
    answer = client.post("/tasks/pets", content=picture(1)).json()
    assert {entry["label"] for entry in answer} == {"cat", "dog", "Größe"}


def test_top_k_defaults_to_five_and_ends_at_all(client: httpx.Client) -> None:
    def count(**params: int) -> int:
        return len(client.post("/tasks/digits", content=picture(1), params=params).json())

    assert [count(), count(top_k=1), count(top_k=99)] == [5, 1, 10]


def test_a_content_type_makes_no_difference(client: httpx.Client) -> None:
    encoded = picture(1, format="JPEG")
    answers = [
        client.post("/tasks/pets", content=encoded, headers=headers).json()
        for headers in ({}, {"Content-Type": "image/png"}, {"Content-Type": "text/plain"})
    ]
    assert answers[0] == answers[1] == answers[2]


def test_json_says_the_same_as_the_raw_body(client: httpx.Client) -> None:
    encoded = picture(1)
    form = {"inputs": base64.b64encode(encoded).decode(), "parameters": {"top_k": 2}}
    answer = client.post("/tasks/digits", json=form).json()
    assert answer == client.post("/tasks/digits?top_k=2", content=encoded).json()


def test_an_unknown_task_names_those_that_are_loaded(client: httpx.Client) -> None:
    response = client.post("/tasks/birds", content=picture(1))
    sentence = refused(response, 404, "task_not_found")
    assert "birds" in sentence
    assert "digits" in sentence


def test_an_unknown_task_is_refused_without_waiting_for_its_image(client: httpx.Client) -> None:
    with connection(str(client.base_url)) as bare:
        bare.sendall(b"POST /tasks/birds HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        assert bare.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_a_task_unloaded_on_the_way_is_not_found(client: httpx.Client, engine: Any) -> None:
    engine.hold()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/tasks/pets", content=picture(1))
        assert engine.entered.acquire(timeout=30)
        engine.unload("pets")
        engine.release()
        assert first.result().status_code == 200
    refused(client.post("/tasks/pets", content=picture(1)), 404, "task_not_found")


@pytest.mark.parametrize("body", [b"hello", picture(1)[:-100], b"\x89PNG\r\n\x1a\n", b"\0" * 9999])
def test_what_is_no_image_is_refused(client: httpx.Client, body: bytes) -> None:
    refused(client.post("/tasks/digits", content=body), 422, "invalid_image")


def test_an_image_of_16_bits_is_refused(client: httpx.Client) -> None:
    encoded = encode(Image.new("I;16", (8, 8)))
    sentence = refused(client.post("/tasks/digits", content=encoded), 422, "invalid_image")
    assert "8 bits" in sentence


def test_a_pixel_bomb_is_refused(client: httpx.Client) -> None:
    bomb = encode(Image.new("1", (10_000, 10_000)))
    assert len(bomb) < SETTINGS.max_body_bytes
    sentence = refused(client.post("/tasks/digits", content=bomb), 413, "image_too_large")
    assert "50,000 pixels" in sentence


def test_a_line_that_would_become_very_large_is_refused(client: httpx.Client, engine: Any) -> None:
    line = encode(Image.new("1", (1, 40_000)))
    assert len(line) < 200
    assert client.post("/tasks/digits", content=line).status_code == 200  # it is squashed
    preprocessing = engine.task("digits").preprocessing
    wide = replace(preprocessing, crop_mode="center", input_size=(3, 224, 224))
    engine.prepare("digits", wide)
    sentence = refused(client.post("/tasks/digits", content=line), 413, "image_too_large")
    assert "would be resized to 224 x 8960000" in sentence
    engine.prepare("digits", replace(wide, crop_mode="border"))
    sentence = refused(client.post("/tasks/digits", content=line), 422, "invalid_image")
    assert "would be resized to 0 x 224" in sentence


def test_an_empty_body_is_refused(client: httpx.Client) -> None:
    assert "empty" in refused(client.post("/tasks/digits"), 400, "invalid_request")


def test_bad_options_are_refused(client: httpx.Client) -> None:
    for params in ({"top_k": "0"}, {"top_k": "many"}, {"topk": "1"}):
        response = client.post("/tasks/digits", content=picture(1), params=params)
        refused(response, 400, "invalid_request")
    response = client.post(
        "/tasks/digits", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert "not valid JSON" in refused(response, 400, "invalid_request")


def test_a_wrong_method_is_told_the_right_one(client: httpx.Client) -> None:
    response = client.get("/tasks/digits")
    assert "does not take GET" in refused(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"
    refused(client.post("/health", content=b"x"), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/", "/nothing", "/tasks/", "/tasks/digits/", "/tasks/a/b"])
def test_an_unknown_path_is_told_the_routes(client: httpx.Client, path: str) -> None:
    sentence = refused(client.post(path, content=picture(1)), 404, "route_not_found")
    assert "POST /tasks/{task}" in sentence


def test_an_unforeseen_error_is_logged_and_not_told(
    client: httpx.Client, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> Answer:
        raise ZeroDivisionError("secret /path")

    engine.run = broken
    response = client.post("/tasks/digits", content=picture(1))
    sentence = refused(response, 500, "internal_error")
    assert response.headers["Connection"] == "close"
    assert "secret" not in sentence
    until(lambda: "secret /path" in caplog.text)  # logged after the answer is sent
    assert "Traceback" in caplog.text
    del engine.run
    assert client.post("/tasks/digits", content=picture(1)).status_code == 200


def test_interleaved_tasks_get_their_own_answers(client: httpx.Client, engine: Any) -> None:
    requests = [(task, picture(seed)) for seed in range(30) for task in ("digits", "pets")]

    def ask(request: tuple[str, bytes]) -> list[tuple[str, float]]:
        task, encoded = request
        response = client.post(f"/tasks/{task}", content=encoded, params={"top_k": 10})
        return pairs(response.json())

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, requests))
    assert answers == [offline(engine, task, encoded) for task, encoded in requests]


def test_while_a_task_is_swapped_every_answer_is_of_the_adapter_it_names(
    client: httpx.Client, engine: Any
) -> None:
    encoded = picture(1)
    by_digest: dict[str, list[tuple[str, float]]] = {}
    stop = threading.Event()

    def swap() -> None:
        seed = 0
        while not stop.is_set():
            seed = (seed + 1) % 4
            engine.load("digits", [f"{seed}{digit}" for digit in DIGITS], seed=seed)

    for seed in range(4):
        info = engine.load("digits", [f"{seed}{digit}" for digit in DIGITS], seed=seed)
        by_digest[info.digest] = offline(engine, "digits", encoded)
    assert len(by_digest) == 4

    with ThreadPoolExecutor(5) as pool:
        swapping = pool.submit(swap)
        responses = list(
            pool.map(lambda _: client.post("/tasks/digits?top_k=10", content=encoded), range(60))
        )
        stop.set()
        swapping.result()
    seen = {response.headers["X-Gatehub-Digest"] for response in responses}
    assert len(seen) > 1
    for response in responses:
        assert pairs(response.json()) == by_digest[response.headers["X-Gatehub-Digest"]]


def test_the_event_loop_answers_while_the_engine_computes(
    client: httpx.Client, engine: Any
) -> None:
    engine.hold()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(client.post, "/tasks/digits", content=picture(1))
        assert engine.entered.acquire(timeout=30)
        assert client.get("/health").status_code == 200
        assert not slow.done()
        engine.release()
        assert slow.result().status_code == 200


def test_scores_are_probabilities(client: httpx.Client) -> None:
    answer = client.post("/tasks/digits?top_k=10", content=picture(1)).json()
    total = torch.tensor([entry["score"] for entry in answer]).sum()
    torch.testing.assert_close(total, torch.tensor(1.0))


def test_the_worker_threads_end_with_the_application(engine: Any) -> None:
    app = create_app(engine)

    def workers() -> list[str]:
        names = [thread.name for thread in threading.enumerate()]
        return [name for name in names if name.startswith("gatehub-worker")]

    async def live() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            assert (await client.post("/tasks/pets", content=picture(1))).status_code == 200
            assert workers()

    asyncio.run(live())
    until(lambda: not workers())
    assert app.routes  # as long as the application is there, only its end can have ended them
