"""A Hub on a loopback port, and an environment in which nothing of the user's is found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_server.serve import TestHub, serve_hub
from tests.hub_server.state import TOKEN


@pytest.fixture
def test_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestHub]:
    """A Hub, and a user who is logged in there; waits between retries are cut short."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GATEHUB_HUB", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.02)))
    with serve_hub() as hub:
        yield hub
