from __future__ import annotations

import gzip
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

import httpx
import pytest

from gatehub.server import ServerSettings, running_server
from tests.server.connections import connection, read_to_end, until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@pytest.fixture(scope="module")
def small() -> Iterator[str]:
    engine: Any = LinearEngine(pets=["cat", "dog"])
    with running_server(engine, settings=ServerSettings(max_body_bytes=50_000)) as url:
        yield url


def post(url: str, **request: Any) -> httpx.Response:
    # No TLS: to load its certificates takes longer than the request.
    return httpx.post(f"{url}/tasks/pets", trust_env=False, verify=False, timeout=30, **request)


def test_a_body_of_exactly_the_limit_is_read(engine: Any) -> None:
    encoded = picture(1)
    with running_server(engine, settings=ServerSettings(max_body_bytes=len(encoded))) as url:
        assert post(url, content=encoded).status_code == 200
    with running_server(engine, settings=ServerSettings(max_body_bytes=len(encoded) - 1)) as url:
        response = post(url, content=encoded)
        assert response.status_code == 413
        assert response.json()["code"] == "body_too_large"


def test_an_announced_length_over_the_limit_is_refused_unread(engine: Any) -> None:
    with (
        running_server(engine, settings=ServerSettings(max_body_bytes=1000)) as url,
        connection(url) as client,
    ):
        client.sendall(
            b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_counted_as_it_arrives(engine: Any) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(500):
            sent += 10_000
            yield bytes(10_000)

    with running_server(engine, settings=ServerSettings(max_body_bytes=100_000)) as url:
        response = post(url, content=chunks())
        assert "content-length" not in response.request.headers
        assert response.status_code == 413
        assert "larger than 100,000 bytes" in response.json()["error"]


def test_a_chunked_body_is_refused_before_it_ends(engine: Any) -> None:
    with (
        running_server(engine, settings=ServerSettings(max_body_bytes=1000)) as url,
        connection(url) as client,
    ):
        client.sendall(
            b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"800\r\n" + bytes(0x800) + b"\r\n"
        )
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_compressed_bodies_are_inflated_and_counted(engine: Any) -> None:
    encoded = picture(1)
    raw = zlib.compressobj(wbits=-15)
    bodies = [
        ("gzip", gzip.compress(encoded)),
        ("Deflate", zlib.compress(encoded)),
        ("deflate", raw.compress(encoded) + raw.flush()),
        ("identity", encoded),
    ]
    most = 2 * len(encoded) + 100
    settings = ServerSettings(max_body_bytes=most, max_bytes_in_flight=most)
    with running_server(engine, settings=settings) as url:
        for coding, body in bodies:
            response = post(url, content=body, headers={"Content-Encoding": coding})
            assert response.status_code == 200, response.text
        assert b"gatehub_body_bytes 0" in httpx.get(f"{url}/metrics", verify=False).content


@pytest.mark.parametrize(
    ("coding", "body", "status", "sentence"),
    [
        ("gzip", gzip.compress(b"0" * 10_000_000, mtime=0), 413, "larger than 50,000 bytes"),
        ("deflate", zlib.compress(b"0" * 50_001), 413, "larger than 50,000 bytes"),
        ("gzip", gzip.compress(b"image", mtime=0)[:-1], 400, "ends before its end"),
        ("gzip", gzip.compress(b"image", mtime=0) + b"x", 400, "goes on after its end"),
        ("gzip", b"image", 400, "is not valid gzip (Error -3"),
        ("gzip", gzip.compress(b"", mtime=0), 400, "is empty"),
        ("br", b"image", 400, "'br'; expected gzip or deflate"),
        ("gzip, gzip", b"image", 400, "'gzip, gzip'; expected"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_inflated_is_refused(
    small: str, coding: str, body: bytes, status: int, sentence: str
) -> None:
    response = post(small, content=body, headers={"Content-Encoding": coding})
    assert response.status_code == status
    assert sentence in response.json()["error"]


def test_a_body_that_does_not_arrive_is_given_up(engine: Any) -> None:
    with (
        running_server(engine, settings=ServerSettings(body_timeout_s=1)) as url,
        connection(url) as client,
    ):
        client.sendall(b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        answer = read_to_end(client)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"did not arrive within 1 s" in answer


def test_requests_over_the_bound_are_refused_at_once_and_the_others_answered(engine: Any) -> None:
    settings = ServerSettings(max_requests=3, retry_after_s=7)
    engine.hold()
    with running_server(engine, settings=settings) as url, ThreadPoolExecutor(6) as pool:
        pending = {pool.submit(post, url, content=picture(1)) for _ in range(6)}
        refused: list[httpx.Response] = []
        while len(refused) < 3:  # while the engine is held, no other answer can come
            done, pending = wait(pending, timeout=30, return_when=FIRST_COMPLETED)
            refused += [request.result() for request in done]
        engine.release()
        answered = [request.result() for request in pending]
    assert [response.status_code for response in refused] == [503] * 3
    assert [response.status_code for response in answered] == [200] * 3
    assert {response.headers["Retry-After"] for response in refused} == {"7"}
    assert {response.json()["code"] for response in refused} == {"server_busy"}
    assert "Try again in 7 s" in refused[0].json()["error"]


def test_places_are_given_back_after_errors(engine: Any) -> None:
    settings = ServerSettings(max_requests=1, max_body_bytes=1000)
    with running_server(engine, settings=settings) as url:
        for body in (b"", b"no image", bytes(2000)):
            assert post(url, content=body).status_code in (400, 413, 422)
        with connection(url) as client:
            client.sendall(b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nha")
        until(lambda: post(url, content=picture(1, size=(4, 4))).status_code == 200)


def test_no_thread_is_spent_on_a_client_that_has_gone(
    engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServerSettings(max_requests=2)
    encoded = picture(1)
    head = f"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: {len(encoded)}\r\n\r\n"
    engine.hold()
    with running_server(engine, settings=settings) as url, ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, url, content=encoded)
        assert engine.entered.acquire(timeout=30)
        with connection(url) as client:
            client.sendall(head.encode() + encoded)
            # Its place is taken once there is none left for anybody else.
            until(lambda: post(url, content=b"").status_code == 503)
        for _ in range(3):  # after these, the server has seen the connection close
            assert httpx.get(f"{url}/health", verify=False).status_code == 200
        engine.release()
        assert first.result().status_code == 200
        assert post(url, content=encoded).status_code == 200
    assert engine.runs == 2
    assert not caplog.records


def test_as_many_batches_are_computed_at_once_as_are_set(engine: Any) -> None:
    threads = 5
    settings = ServerSettings(batch_threads=threads, max_batch=1)
    engine.hold()
    with (
        running_server(engine, settings=settings) as url,
        ThreadPoolExecutor(threads) as pool,
    ):
        answers = [pool.submit(post, url, content=picture(1)) for _ in range(threads)]
        for _ in range(threads):
            assert engine.entered.acquire(timeout=30)
        engine.release()
        assert {answer.result().status_code for answer in answers} == {200}


def test_at_most_that_many_batches_are_computed_at_once(engine: Any) -> None:
    running, most, lock = 0, 0, threading.Lock()
    run = engine.run

    def counted(*arguments: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            time.sleep(0.01)
            return run(*arguments)
        finally:
            with lock:
                running -= 1

    engine.run = counted
    settings = ServerSettings(batch_threads=2, max_batch=1)
    with running_server(engine, settings=settings) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: post(url, content=picture(seed)), range(24)))
    assert {answer.status_code for answer in answers} == {200}
    assert most == 2
