"""Clients that are slow, many, or not what they should be, on bare sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from gatehub.errors import ServerError
from gatehub.server import ServerSettings, running_server
from gatehub.server.connections import check_uvicorn
from tests.server.connections import connection, read_to_end, until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

HEAD = b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@contextmanager
def serving(engine: Any, **settings: int) -> Iterator[str]:
    with running_server(engine, settings=ServerSettings(**settings)) as url:
        yield url


def post(url: str, encoded: bytes = picture(1)) -> httpx.Response:
    return httpx.post(f"{url}/tasks/pets", content=encoded, verify=False, timeout=30)


def ask(url: str, request: bytes) -> bytes:
    with connection(url) as client:
        client.sendall(request)
        return read_to_end(client)


def is_closed(client: socket.socket) -> bool:
    client.settimeout(30)
    try:
        return client.recv(4096) == b""
    except ConnectionResetError:
        return True


def refuses_bytes(client: socket.socket) -> bool:
    try:
        client.sendall(bytes(1000))
    except OSError:  # a reset or a broken pipe, by the system
        return True
    return False


def read_status(client: socket.socket) -> int:
    """Read one answer, whole."""
    answer = HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


def test_many_slow_clients_take_no_place(engine: Any) -> None:
    with serving(engine, max_requests=2) as url, ExitStack() as stack:
        for _ in range(80):
            client = stack.enter_context(connection(url))
            client.sendall(HEAD + b"Content-Length: 100000\r\n\r\nhi")
        assert post(url).status_code == 200


def test_headers_that_do_not_arrive_are_given_up(engine: Any) -> None:
    with serving(engine, header_timeout_s=1) as url:
        answer = ask(url, b"POST /tasks/pets HTTP/1.1\r\nHo")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"header_timeout"' in answer
        with connection(url) as silent:  # to who says nothing nothing is said
            assert is_closed(silent)


def test_bytes_that_trickle_do_not_prolong_the_time(engine: Any) -> None:
    with serving(engine, header_timeout_s=1) as url, connection(url) as client:
        client.settimeout(0.1)
        client.sendall(b"GET /health HTTP/1.1\r\nX: ")
        answer = b""
        while not answer:  # it sends for as long as it is let
            client.sendall(b"x")
            try:
                answer = client.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_kept_connection_has_that_time_for_each_request(engine: Any) -> None:
    get = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(engine, header_timeout_s=1) as url, connection(url) as client:
        for _ in range(2):
            client.sendall(get)
            assert read_status(client) == 200
        client.sendall(get[:9])
        assert read_status(client) == 408


def test_pipelined_requests_are_answered_in_order(engine: Any) -> None:
    first, second = (
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /nothing HTTP/1.1\r\nHost: x\r\n",
    )
    with serving(engine) as url:
        answer = ask(url, first + second + b"Connection: close\r\n\r\n")
    assert answer.index(b"HTTP/1.1 200 ") < answer.index(b"HTTP/1.1 404 ")


def test_the_rest_of_a_body_that_was_refused_has_an_end(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatehub.server.connections._LINGER_S", 0.5)
    with serving(engine, max_body_bytes=1000) as url, connection(url) as client:
        client.sendall(HEAD + b"Content-Length: 1000000000\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")
        until(lambda: refuses_bytes(client))


def test_connections_over_the_bound_are_told_so(engine: Any) -> None:
    with serving(engine, max_connections=3, retry_after_s=4) as url, ExitStack() as stack:
        clients = [stack.enter_context(connection(url)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        with connection(url) as one_more:
            answer = read_to_end(one_more)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 4" in answer
        clients[0].close()
        until(lambda: ask(url, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 "))


def test_bodies_together_have_a_bound(engine: Any) -> None:
    encoded = picture(1)
    engine.hold()
    with (
        serving(engine, max_bytes_in_flight=2 * len(encoded) + 10) as url,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(post, url)
        assert engine.entered.acquire(timeout=30)
        with connection(url) as slow:
            slow.sendall(HEAD + b"Content-Length: 10000\r\n\r\n" + encoded[:-1])
            until(lambda: post(url, encoded).status_code == 503)
            refused = post(url, encoded)
            assert refused.json()["code"] == "server_busy"
            assert "the bodies of all requests together" in refused.json()["error"]
            assert "Retry-After" in refused.headers
        engine.release()
        assert first.result().status_code == 200
        until(lambda: post(url, encoded).status_code == 200)  # the slow one's are given back


BOTH = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("route", [b"POST /tasks/pets", b"GET /health", b"POST /nothing"])
def test_two_lengths_are_refused_and_the_connection_closed(engine: Any, route: bytes) -> None:
    hidden = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    for lengths in (BOTH, BOTH.title(), b"\r\n".join(reversed(BOTH.split(b"\r\n")[:2])) + b"\r\n"):
        with serving(engine) as url:
            answer = ask(
                url, route + b" HTTP/1.1\r\nHost: x\r\n" + lengths + b"\r\n0\r\n\r\n" + hidden
            )
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b'"ambiguous_length"' in answer


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 1, 2\r\n\r\nxx",
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        HEAD + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
        HEAD + b"Bad Name: x\r\n\r\n",
    ],
    ids=range(9),
)
def test_what_is_not_http_is_refused_in_the_servers_own_form(engine: Any, request_: bytes) -> None:
    with serving(engine, header_timeout_s=1) as url:
        answer = ask(url, request_)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 408 "))
        assert b'{"error": "' in answer
        assert post(url).status_code == 200


def test_a_broken_chunk_after_an_answer_is_worth_no_log_line(
    engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(engine, max_body_bytes=1000) as url:
        with connection(url) as client:
            client.sendall(
                HEAD + b"Transfer-Encoding: chunked\r\n\r\n800\r\n" + bytes(0x800) + b"\r\n"
            )
            assert read_status(client) == 413
            client.sendall(b"nonsense\r\n")
            assert is_closed(client)
        assert post(url).status_code in (200, 413)
    assert not [record for record in caplog.records if record.exc_info]


def test_an_image_that_would_become_larger_than_allowed_is_refused(engine: Any) -> None:
    with serving(engine, max_resized_pixels=100) as url:
        response = post(url)
        assert (response.status_code, response.json()["code"]) == (413, "image_too_large")
        assert "takes more than 100" in response.json()["error"]


def test_uvicorn_has_all_that_connections_stand_on() -> None:
    """If it fails, the version that is installed broke gatehub/server/connections.py."""
    config, loop = uvicorn.Config(lambda: None, log_config=None), asyncio.new_event_loop()
    try:
        made = H11Protocol(config=config, server_state=ServerState(), app_state={}, _loop=loop)
    finally:
        loop.close()
    check_uvicorn()
    check_uvicorn(made)
    for name in ("startup", "on_tick", "shutdown", "handle_exit"):  # of serve.py
        assert callable(getattr(uvicorn.Server, name, None)), (
            f"uvicorn {uvicorn.__version__}: {name}"
        )


def test_a_uvicorn_that_is_built_otherwise_is_refused_by_its_version(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uvicorn, "__version__", "9.9")
    monkeypatch.delattr(H11Protocol, "handle_events")
    with pytest.raises(ServerError, match=r"uvicorn 9\.9 has no H11Protocol\.handle_events"):
        running_server(engine).__enter__()
