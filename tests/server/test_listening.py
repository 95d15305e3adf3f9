"""Addresses: of IPv4 and IPv6, and sockets in a folder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from gatehub.errors import ServerError
from gatehub.server import listen, running_server
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


def test_an_address_is_taken_before_there_is_an_engine() -> None:
    with listen() as listener:
        assert listener.url.startswith("http://127.0.0.1:")
        port = listener.socket.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port}: Address already in use"):
            listen(port=port).__enter__()
    with listen(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_no_answer_waits_for_its_head_to_be_acknowledged() -> None:
    with (
        listen() as listener,
        socket.create_connection(listener.socket.getsockname()),
        listener.socket.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_on_a_unix_socket_answers_and_takes_it_away(engine: Any, tmp_path: Path) -> None:
    path = tmp_path / "gatehub.sock"
    with (
        listen(path=path) as listener,
        running_server(engine, listener=listener) as url,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client,
    ):
        assert url == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        assert client.post("/tasks/pets", content=picture(1)).status_code == 200
        assert client.get("/nothing").status_code == 404
    assert not path.exists()


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "gatehub.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listen(path=path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert listener.url == f"unix:{path}"


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text("mine")
    path = tmp_path / "gatehub.sock"
    with listen(path=path), pytest.raises(ServerError, match="Address already in use"):
        listen(path=path).__enter__()
    for place in (note, tmp_path, tmp_path / "none" / "gatehub.sock", tmp_path / ("x" * 200)):
        with pytest.raises(ServerError, match=r"Cannot listen on .*Choose another path"):
            listen(path=place).__enter__()
    assert note.read_text() == "mine"


def test_a_socket_that_another_server_has_made_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "gatehub.sock"
    with listen(path=path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
    assert path.exists()
