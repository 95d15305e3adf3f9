"""What /metrics says, as a scraper reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_open_metrics,
)
from prometheus_client.parser import text_string_to_metric_families

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Engine
from gatehub.server import ServerSettings, running_server
from gatehub.server.observing import metrics
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture
from tests.tiny import make_trained

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"], cars=["vw", "bmw"])


@pytest.fixture
def client(engine: Any) -> Iterator[httpx.Client]:
    settings = ServerSettings(max_body_bytes=50_000)
    with (
        running_server(engine, settings=settings) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


def scrape(client: httpx.Client) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def requests(samples: Samples) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["task"], dict(labels)["outcome"]): value
        for (name, labels), value in samples.items()
        if name == "gatehub_requests_total"
    }


def test_requests_are_counted_by_task_and_outcome(client: httpx.Client) -> None:
    for _ in range(3):
        client.post("/tasks/pets", content=picture(1))
    client.post("/tasks/cars", content=b"no image")
    client.post("/tasks/cars", content=bytes(60_000))
    for name in ("nothing", "a" * 90, "other", 'quo"te'):
        client.post(f"/tasks/{name}", content=picture(1))
    client.get("/nowhere")
    client.get("/health")
    samples = scrape(client)
    assert requests(samples) == {
        ("pets", "ok"): 3,
        ("cars", "invalid_image"): 1,
        ("cars", "body_too_large"): 1,
        ("", "task_not_found"): 4,
        ("", "route_not_found"): 1,
    }
    assert samples["gatehub_request_seconds_count", ()] == 10
    assert samples["gatehub_decode_seconds_count", ()] == 4
    assert samples["gatehub_inference_seconds_count", ()] == 3
    assert samples["gatehub_queue_seconds_count", ()] == 4
    assert samples["gatehub_batch_images_sum", ()] >= 3
    assert samples["gatehub_request_seconds_sum", ()] >= samples["gatehub_decode_seconds_sum", ()]
    assert samples["gatehub_tasks", ()] == 2
    assert samples["gatehub_queue_depth", ()] == samples["gatehub_requests_in_flight", ()] == 0
    assert samples["process_resident_memory_bytes", ()] > 0


def test_only_tasks_that_are_served_have_a_label(
    client: httpx.Client, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.post("/tasks/pets", content=picture(1))
    engine.unload("pets")
    client.post("/tasks/pets", content=picture(1))
    assert requests(scrape(client)) == {("", "task_not_found"): 1}
    monkeypatch.setattr(metrics, "MAX_TASKS", 1)
    engine.load("more", ["a", "b"], seed=0)
    for task in ("cars", "more", "cars"):
        client.post(f"/tasks/{task}", content=picture(1))
    assert requests(scrape(client)) == {
        ("", "task_not_found"): 1,
        ("cars", "ok"): 2,
        ("(others)", "ok"): 1,
    }


def test_a_scraper_may_ask_for_another_form_and_for_nonsense(client: httpx.Client) -> None:
    client.post("/tasks/pets", content=picture(1))
    response = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert "gatehub_requests" in {family.name for family in parse_open_metrics(response.text)}
    for accept in (
        "text/plain; version=x",
        "application/openmetrics-text; version=1.0.0; escaping=x",
        "*/*",
        "",
    ):
        response = client.get("/metrics", headers={"Accept": accept})
        assert response.status_code == 200, accept
        assert "gatehub_requests_total" in response.text


def test_two_servers_in_one_process_count_for_themselves(client: httpx.Client) -> None:
    client.post("/tasks/pets", content=picture(1))
    another: Any = LinearEngine(pets=["cat", "dog"])
    with running_server(another) as url, httpx.Client(base_url=url, trust_env=False) as other:
        assert requests(scrape(other)) == {}
    assert requests(scrape(client)) == {("pets", "ok"): 1}


def test_a_task_that_leaves_memory_and_comes_back_is_seen(tiny_backbone: Backbone) -> None:
    engine = Engine(tiny_backbone)
    for seed, task in enumerate(("one", "two")):
        model = make_trained(tiny_backbone, seed=seed)
        engine.load(task, Adapter.from_model(model, task=task))
    engine.evict("one")
    with running_server(engine) as url, httpx.Client(base_url=url, trust_env=False) as client:
        before = scrape(client)
        assert client.post("/tasks/one", content=picture(1)).status_code == 200
        after = scrape(client)
    folded = (("tier", "folded"),)
    held, gates = (r.bytes for r in engine.memory())
    assert after["gatehub_resident_bytes", folded] == held
    assert after["gatehub_resident_bytes", (("tier", "gates"),)] == gates
    assert after["gatehub_evictions_total", folded] == 1
    assert before["gatehub_swap_seconds_count", folded] == 2
    assert after["gatehub_swap_seconds_count", folded] == 3
    assert after["gatehub_swap_seconds_sum", folded] > 0
