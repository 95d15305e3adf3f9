"""Every error of gatehub has a status and a code, and reaches a client with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import torch

from gatehub import errors
from gatehub.errors import GatehubError
from gatehub.server import running_server
from gatehub.server.statuses import FAULT, STATUSES, find_status
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

KINDS = sorted(
    (
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GatehubError)
    ),
    key=lambda kind: kind.__name__,
)


def make(kind: type[GatehubError]) -> GatehubError:
    try:
        return kind("The lamp is out.", hint="Buy a lamp.")
    except TypeError:
        return kind("The lamp is out.", hint="Buy a lamp.", retry_after_s=7)  # type: ignore[call-arg]


class Failing(LinearEngine):
    error: BaseException | None = None

    def run(self, name: str, images: torch.Tensor) -> Any:
        if self.error is not None:
            raise self.error
        return super().run(name, images)


@pytest.fixture(scope="module")
def engine() -> Any:
    return Failing(pets=["cat", "dog"])


@pytest.fixture(scope="module")
def client(engine: Any) -> Iterator[httpx.Client]:
    with running_server(engine) as url, httpx.Client(base_url=url, verify=False) as client:
        yield client


def ask(client: httpx.Client, engine: Any, error: BaseException) -> httpx.Response:
    engine.load("pets", ["cat", "dog"], seed=0)  # a new one, of which no failure is remembered
    engine.error = error
    try:
        return client.post("/tasks/pets", content=picture(1))
    finally:
        engine.error = None


def test_no_class_of_the_tree_is_missing() -> None:
    assert set(STATUSES) == set(KINDS)


def test_a_class_of_somebody_elses_has_the_status_of_its_nearest_ancestor() -> None:
    class MineError(errors.MissingFileError):
        pass

    assert find_status(MineError("")) == STATUSES[errors.MissingFileError]
    assert find_status(ValueError("")) == FAULT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_is_answered_as_the_table_says(
    client: httpx.Client, engine: Any, kind: type[GatehubError], caplog: pytest.LogCaptureFixture
) -> None:
    error, expected = make(kind), STATUSES[kind]
    response = ask(client, engine, error)
    answer = response.json()
    assert (response.status_code, answer["code"]) == (expected.status, expected.code)
    assert answer.get("task") == ("pets" if expected.status in (502, 503) else None)
    assert ("Retry-After" in response.headers) == (expected.status == 503)
    assert ("Nothing is wrong with the request" in answer["error"]) == expected.is_fault
    assert ("lamp is out" in answer["error"]) != expected.is_fault
    # What whoever runs the server can mend is told there.
    assert ("lamp is out" in caplog.text) == (expected.is_fault or expected.about_task)
    if expected.about_task:
        assert answer["error"] == "Task 'pets' cannot be served just now: The lamp is out."
    if getattr(error, "retry_after_s", None):
        assert response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory_is_for_later(
    client: httpx.Client, engine: Any, error: Exception
) -> None:
    response = ask(client, engine, error)
    assert response.status_code == 503
    assert response.json()["code"] == "out_of_memory"
    assert response.json()["task"] == "pets"
    assert "Retry-After" in response.headers
    engine.error = None
    assert client.post("/tasks/pets", content=picture(1)).status_code == 200


def test_long_paths_and_methods_are_not_sent_back(client: httpx.Client) -> None:
    for response in (client.get("/" + "x" * 5000), client.request("X" * 5000, "/health")):
        assert response.status_code in (404, 405)
        assert len(response.text) < 300
