"""The line that each request leaves, and what strangers cannot make of it."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote as percent

import httpx
import pytest

from gatehub.server import running_server
from gatehub.server.observing.log_format import logging_to
from gatehub.server.observing.request_log import LOGGER
from tests.server.connections import connection, read_to_end, until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [a-z.]+: .+")


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@contextmanager
def logged(engine: Any, form: str) -> Iterator[tuple[httpx.Client, io.StringIO]]:
    stream = io.StringIO()
    with (
        logging_to(form, stream),
        running_server(engine) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client, stream


def test_a_request_is_one_object_with_its_times(engine: Any) -> None:
    with logged(engine, "json") as (client, stream):
        client.get("/health")  # a probe's is not worth a line
        response = client.post("/tasks/pets", content=picture(1), headers={"X-Request-Id": "a-1"})
        assert response.headers["X-Request-Id"] == "a-1"
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    times = told.pop("ms")
    info = engine.task("pets")
    assert told.pop("time").endswith("Z")
    assert told == {
        "level": "INFO",
        "logger": LOGGER,
        "request_id": "a-1",
        "method": "POST",
        "route": "/tasks/{task}",
        "task": "pets",
        "status": 200,
        "outcome": "ok",
        "digest": info.digest,
        "generation": info.generation,
        "batch": 1,
    }
    assert list(times) == ["load", "queue", "decode", "inference", "rank", "total"]
    total = times.pop("total")
    assert 0 < sum(times.values()) <= total + 0.01


def test_an_error_has_its_code_and_the_same_identity(engine: Any) -> None:
    with logged(engine, "text") as (client, stream):
        for body, path in ((b"x", "pets"), (b"x", "nothing"), (b"", "pets")):
            response = client.post(f"/tasks/{path}", content=body, headers={"X-Request-Id": path})
            assert response.headers["X-Request-Id"] == path
    first, second, third = stream.getvalue().splitlines()
    assert "request_id=pets method=POST route=/tasks/{task} task=pets status=422" in first
    assert " outcome=invalid_image " in first
    assert " decode_ms=" in first
    assert " inference_ms=" not in first
    assert "task=nothing status=404 outcome=task_not_found total_ms=" in second
    assert "status=400 outcome=invalid_request" in third


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 129, "é", '"', "a,b", "-a", "{}"])
def test_an_identity_that_is_not_sound_is_replaced(engine: Any, given: str) -> None:
    with logged(engine, "text") as (client, stream):
        headers = {"X-Request-Id": given.encode()}
        answers = [client.post("/tasks/pets", headers=headers).headers for _ in range(2)]
    made = [answer["X-Request-Id"] for answer in answers]
    assert len(set(made)) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
    assert [each in stream.getvalue() for each in made] == [True, True]


def test_two_identities_are_none(engine: Any) -> None:
    with logged(engine, "text") as (client, _):
        answer = client.get("/health", headers=[("X-Request-Id", "a"), ("X-Request-Id", "b")])
    assert len(answer.headers["X-Request-Id"]) == 32


FORGED = "2026-01-01T00:00:00.000Z INFO gatehub: forged"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_stranger_begins_a_line(engine: Any, form: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"a file called\n{FORGED}\r\n{FORGED}\u2028{FORGED}")

    names = ["x\n" + FORGED, "x\r" + FORGED, "\x1b[2K" + FORGED, "\u2028" + FORGED, '" status=200']
    engine.run = fail
    with logged(engine, form) as (client, stream):
        for name in names:
            client.post(f"/tasks/{percent(name)}")
            client.request("G" * 500, f"/{percent(name)}")
        with connection(str(client.base_url)) as bare:
            bare.sendall(b"GET /\xff\xfe%00%0a HTTP/1.0\r\nX-Request-Id: \xff\r\n\r\n")
            read_to_end(bare)
        assert client.post("/tasks/pets", content=picture(1)).status_code == 500
        until(lambda: "RuntimeError" in stream.getvalue())
    text = stream.getvalue()
    assert text.isascii() or form == "text"
    assert not re.search(r"[^\n\x20-\x7e]", text.replace("…", ""))
    lines = text.split("\n")[:-1]
    begun = [line for line in lines if not line.startswith("    ")]
    requests = [line for line in begun if LOGGER in line]
    assert len(requests) == 2 * len(names) + 1  # the bare one is no HTTP
    if form == "json":
        assert all(isinstance(json.loads(line), dict) for line in lines)
    else:
        assert all(LINE.fullmatch(line) for line in begun)
        assert not [line for line in begun if line.startswith(FORGED)]


def test_a_client_that_goes_is_written_as_gone(engine: Any) -> None:
    engine.hold()
    with logged(engine, "json") as (client, stream):
        body = picture(1)
        with connection(str(client.base_url)) as bare:
            head = f"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            bare.sendall(head.encode() + body)
            assert engine.entered.acquire(timeout=30)
        until(lambda: bool(stream.getvalue()))
        engine.release()
    told = json.loads(stream.getvalue())
    assert (told["status"], told["outcome"]) == (499, "client_gone")


def test_off_leaves_warnings_and_the_logging_of_the_program_is_as_before(engine: Any) -> None:
    before = logging.getLogger().handlers[:], logging.getLogger(LOGGER).level
    with logged(engine, "off") as (client, stream):
        client.post("/tasks/pets", content=picture(1))
        logging.getLogger("gatehub.anything").warning("look")
    assert re.fullmatch(r"\S+ WARNING gatehub.anything: look\n", stream.getvalue())
    assert (logging.getLogger().handlers, logging.getLogger(LOGGER).level) == before
