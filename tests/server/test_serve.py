from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gatehub.errors import ServerError
from gatehub.server import ServerSettings, running_server, serve
from tests.server.connections import connection, read_to_end, until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@contextmanager
def serving_program(**settings: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.server.serving_program", json.dumps(settings)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as program:
        try:
            assert program.stdout is not None
            ready, url = program.stdout.readline().split()
            assert ready == "ready"
            yield program, url
        finally:
            program.kill()


def post(url: str) -> httpx.Response:
    return httpx.post(f"{url}/tasks/pets", content=picture(1), verify=False, timeout=60)


def get(url: str, route: str) -> int:
    return httpx.get(f"{url}{route}", verify=False, timeout=60).status_code


def refuses_connections(url: str) -> bool:
    try:
        connection(url).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_on_ready_comes_once_when_the_server_answers_and_a_signal_ends_it(
    engine: Any, capfd: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    answers = []

    def on_ready(url: str) -> None:
        answers.append((url, httpx.get(f"{url}/health", verify=False).json()["status"]))
        os.kill(os.getpid(), number)

    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    serve(engine, port=0, on_ready=on_ready)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    ((url, status),) = answers
    assert status == "ok"
    assert urlsplit(url).port not in (None, 0)
    assert refuses_connections(url)
    assert capfd.readouterr() == ("", "")


def test_an_error_in_on_ready_ends_the_server(engine: Any) -> None:
    urls = []

    def on_ready(url: str) -> None:
        urls.append(url)
        raise BrokenPipeError("nobody reads")

    with pytest.raises(BrokenPipeError, match="nobody reads"):
        serve(engine, port=0, on_ready=on_ready)
    assert refuses_connections(urls[0])


def test_a_port_in_use_is_one_sentence(engine: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ServerError, match=f"127.0.0.1 port {port}: Address already in use"
        ) as e:
            serve(engine, port=port, on_ready=lambda url: pytest.fail(url))
        assert "Choose another port" in str(e.value)
        with pytest.raises(ServerError, match="Address already in use"):
            running_server(engine, port=port).__enter__()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(engine: Any, port: int) -> None:
    with pytest.raises(ServerError, match=f"Port {port} does not exist"):
        serve(engine, port=port, on_ready=lambda url: pytest.fail(url))


def test_running_server_leaves_nothing_behind(engine: Any) -> None:
    with running_server(engine) as url:
        assert post(url).status_code == 200
    assert refuses_connections(url)
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("gatehub-")])


def test_running_server_ends_with_an_error_in_its_block(engine: Any) -> None:
    with pytest.raises(KeyError), running_server(engine) as url:
        raise KeyError(url)
    assert "gatehub-server" not in [thread.name for thread in threading.enumerate()]


def test_running_server_finishes_what_is_in_flight(engine: Any) -> None:
    engine.hold()
    with ThreadPoolExecutor(1) as pool:
        with running_server(engine) as url:
            answer = pool.submit(post, url)
            assert engine.entered.acquire(timeout=30)
            threading.Timer(0.2, engine.release).start()
        assert answer.result().status_code == 200


def test_an_ipv6_url_has_brackets(engine: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with running_server(engine, host="::1") as url:
        assert url.startswith("http://[::1]:")
        assert post(url).status_code == 200


def test_the_drain_has_an_end(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    answers = []

    def on_ready(url: str) -> None:
        answers.append(pool.submit(post, url))
        assert engine.entered.acquire(timeout=30)
        os.kill(os.getpid(), signal.SIGTERM)

    engine.hold()
    with ThreadPoolExecutor(1) as pool:
        serve(engine, port=0, settings=ServerSettings(drain_timeout_s=1), on_ready=on_ready)
        given_up = answers[0].result()
        assert (given_up.status_code, given_up.json()["code"]) == (503, "not_ready")
        engine.release()
    assert not caplog.records


def test_a_body_that_still_arrives_does_not_hold_the_drain(engine: Any) -> None:
    def on_ready(url: str) -> None:
        client = stack.enter_context(connection(url))
        client.sendall(b"POST /tasks/pets HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nha")
        clients.append(client)
        assert httpx.get(f"{url}/health", verify=False).status_code == 200
        os.kill(os.getpid(), signal.SIGTERM)

    clients: list[socket.socket] = []
    with ExitStack() as stack:
        serve(engine, port=0, settings=ServerSettings(drain_timeout_s=1), on_ready=on_ready)
        assert read_to_end(clients[0]).startswith(b"HTTP/1.1 503 ")


def test_after_a_signal_a_server_is_unready_answers_and_returns(engine: Any) -> None:
    seen = []

    def on_ready(url: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        until(lambda: get(url, "/health/ready") == 503)
        seen.extend([get(url, "/health/live"), post(url).status_code, url])

    # The server looks at the time once the callback has returned.
    serve(engine, port=0, settings=ServerSettings(drain_grace_s=1), on_ready=on_ready)
    assert seen[:2] == [200, 200]
    assert refuses_connections(seen[2])


def test_in_the_grace_requests_are_accepted_and_a_second_signal_ends_the_process() -> None:
    with serving_program(drain_grace_s=600) as (program, url), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, url)
        assert program.stdout is not None
        assert program.stdout.readline() == "computing\n"
        program.send_signal(signal.SIGTERM)
        until(lambda: get(url, "/health/ready") == 503)
        assert get(url, "/health/live") == 200
        assert not answer.done()
        program.send_signal(signal.SIGTERM)
        output, errors = program.communicate(timeout=30)
        assert isinstance(answer.exception(), httpx.TransportError)
    assert (program.returncode, output, errors) == (-signal.SIGTERM, "", "")


@pytest.mark.slow
def test_a_program_gets_its_answers_out_and_goes_on_after_sigterm() -> None:
    with serving_program() as (program, url), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, url)
        assert program.stdout is not None
        assert program.stdout.readline() == "computing\n"
        program.send_signal(signal.SIGTERM)
        until(lambda: refuses_connections(url))
        assert not answer.done()
        output, errors = program.communicate("release\n", timeout=30)
        assert answer.result().status_code == 200
    assert output == "returned\n"
    assert errors == ""
    assert program.returncode == 0
