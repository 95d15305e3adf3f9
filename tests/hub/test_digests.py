"""How often an adapter's gates are hashed: their digest is proven once, and passed along."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gatehub.adapter import Adapter
from gatehub.hub import plan_push, pull, push
from tests.hub.plain import REPO
from tests.hub_server.serve import TestHub


class Counted:
    """A hash that says how many bytes it got when it is asked for its digest."""

    def __init__(self, inner: Any, data: bytes, say: Callable[[int], None]) -> None:
        self._inner = inner
        self._bytes = len(data)
        self._say = say

    def update(self, data: bytes) -> None:
        self._bytes += len(data)
        self._inner.update(data)

    def hexdigest(self) -> str:
        self._say(self._bytes)
        return str(self._inner.hexdigest())


@pytest.fixture
def hashed(adapter_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often gatehub has hashed as many bytes as the gates have, since it was asked last."""
    size = (adapter_folder / "gates.safetensors").stat().st_size
    times: list[int] = []
    sha256 = hashlib.sha256

    def count(data: bytes = b"", **more: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():  # the Hub of the tests
            return sha256(data, **more)
        return Counted(sha256(data, **more), data, lambda n: times.append(n) if n == size else None)

    def ask() -> int:
        found = len(times)
        times.clear()
        return found

    monkeypatch.setattr(hashlib, "sha256", count)
    return ask


@pytest.mark.parametrize("kind", ["hub", "folder"])
def test_gates_are_hashed_once_on_each_way(
    kind: str,
    test_hub: TestHub,
    adapter_folder: Path,
    tmp_path: Path,
    hashed: Callable[[], int],
) -> None:
    hub = test_hub.url if kind == "hub" else tmp_path / "hub"
    lock = tmp_path / "gatehub.lock"
    # What is verified is what is sent: once when it is read, and once when it goes out, which the
    # Hub's client does by itself.
    push(adapter_folder, REPO, hub=hub)
    assert hashed() == (1 if kind == "hub" else 2)
    plan_push(adapter_folder, REPO, hub=hub)
    assert hashed() == 1
    # Once while it arrives.
    pull(REPO, hub=hub, lock=lock)
    assert hashed() == 1
    # Once where it lies.
    pull(REPO, hub=hub)
    assert hashed() == 1
    pull(REPO, lock=lock)
    assert hashed() == 1
    # Once while it is copied out of the cache.
    pull(REPO, hub=hub, out=tmp_path / "out")
    assert hashed() == 1
    pull(REPO, hub=hub, out=tmp_path / "out")
    assert hashed() == 1


def test_gates_are_hashed_once_where_paths_are_cut(
    tiny_adapter: Adapter, adapter_folder: Path, tmp_path: Path, hashed: Callable[[], int]
) -> None:
    config = replace(tiny_adapter.config, training={"data": "/home/ada/eyes"})
    folder = replace(tiny_adapter, config=config).save(tmp_path / "eyes", dtype="float32")
    assert hashed() == 1
    push(folder, REPO, hub=tmp_path / "hub", report=lambda sentence: None)
    assert hashed() == 2
