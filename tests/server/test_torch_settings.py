"""What the host program has set in torch changes no answer, and no task that is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Engine
from gatehub.server import create_app, running_server
from tests.server.pictures import picture
from tests.tiny import make_trained


@contextmanager
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


HOSTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": double,
    "default device": device,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "device block": lambda: torch.device("meta"),
}


@pytest.fixture(scope="module")
def folder(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_trained(tiny_backbone, labels=("wren", "crow", "jay"), seed=0)
    folder = tmp_path_factory.mktemp("adapters") / "birds"
    return Adapter.from_model(model, task="birds").save(folder, dtype="float32")


def make_engine(backbone: Backbone, folder: Path) -> Engine:
    engine = Engine(backbone, dtype="float32")
    engine.load("birds", folder)
    engine.register("later", folder)
    return engine


def ask_server(engine: Engine) -> list[Any]:
    """Ask a server in a thread of its own."""
    with running_server(engine) as url, httpx.Client(base_url=url, timeout=60) as client:
        return [post(client.post(route, content=picture(1))) for route in ROUTES]


def ask_app(engine: Engine) -> list[Any]:
    """Ask the application on an event loop of the host's own thread."""

    async def ask() -> list[Any]:
        app = create_app(engine)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            return [post(await client.post(route, content=picture(1))) for route in ROUTES]

    return asyncio.run(ask())


ROUTES = (
    "/tasks/birds",
    "/tasks/birds?function_to_apply=none",
    "/tasks/later?function_to_apply=sigmoid",
)


def post(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def expected(tiny_backbone: Backbone, folder: Path) -> list[Any]:
    return ask_server(make_engine(tiny_backbone, folder))


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS.keys())
def test_an_answer_is_the_same_to_the_last_bit(
    tiny_backbone: Backbone,
    folder: Path,
    expected: list[Any],
    host: Callable[[], AbstractContextManager[Any]],
) -> None:
    with host():
        engine = make_engine(tiny_backbone, folder)
        assert ask_app(engine) == expected


def test_all_of_them_at_once_and_set_while_it_serves(
    tiny_backbone: Backbone, folder: Path, expected: list[Any]
) -> None:
    engine = make_engine(tiny_backbone, folder)
    with (
        running_server(engine) as url,
        httpx.Client(base_url=url, timeout=60) as client,
        ExitStack() as stack,
    ):
        for host in HOSTS.values():
            stack.enter_context(host())
        assert [post(client.post(route, content=picture(1))) for route in ROUTES] == expected
