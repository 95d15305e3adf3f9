"""How long a Hub that says nothing, or too much, is waited for."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session, get_session

import gatehub._huggingface.patience
import gatehub._huggingface.refusals
from gatehub.errors import HubBusyError, HubUnreachableError
from gatehub.hub import pull, push, search
from tests.hub.plain import REPO
from tests.hub_server.faults import FOREVER, Fault
from tests.hub_server.serve import TestHub


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds instead of tens of them."""
    monkeypatch.setattr(gatehub._huggingface.patience, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(gatehub._huggingface.patience, "PATIENCE_S", 0.5)
    monkeypatch.setattr(gatehub._huggingface.refusals, "PATIENCE_S", 0.5)


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_hub_that_never_answers_is_given_up(
    short: None, silent: str, adapter_folder: Path
) -> None:
    close_session()  # the client's own state, before and after
    untouched = get_session().timeout
    for ask in (
        lambda: search(hub=silent),
        lambda: pull(REPO, hub=silent),
        lambda: push(adapter_folder, REPO, hub=silent),
    ):
        began = time.monotonic()
        with pytest.raises(HubUnreachableError, match="did not answer in time"):
            ask()
        assert time.monotonic() - began < 25  # version 1 of the client has a limit of its own
    assert get_session().timeout == untouched


@pytest.mark.parametrize("path", ["/api/models$", "/revision/", "/tree/", "/resolve/", "/cdn/"])
def test_too_many_requests_are_told_at_once(
    test_hub: TestHub, adapter_folder: Path, path: str
) -> None:
    push(adapter_folder, REPO, hub=test_hub.url)
    fault = Fault(path, status=429, times=FOREVER, headers={"Retry-After": "300"})
    test_hub.faults.append(fault)
    with pytest.raises(HubBusyError, match=r"too many requests.*Wait 300 s") as caught:
        pull(REPO, hub=test_hub.url) if path != "/api/models$" else search(hub=test_hub.url)
    assert caught.value.retry_after_s == 300
    assert FOREVER - fault.times == 1


def test_an_upload_that_is_too_much_is_told_too(test_hub: TestHub, adapter_folder: Path) -> None:
    test_hub.faults.append(
        Fault("/lfs/", method="PUT", status=429, times=FOREVER, headers={"Retry-After": "1"})
    )
    with pytest.raises(HubBusyError, match=r"too many requests\. Wait 1 s"):
        push(adapter_folder, REPO, hub=test_hub.url)


def test_the_clients_logs_hold_no_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with caplog.at_level(logging.INFO):
        with pytest.raises(HubUnreachableError):
            search(hub="http://ada:secret@127.0.0.1:9")
        for name in ("huggingface_hub.file_download", gatehub._huggingface.patience.httpx.__name__):
            logging.getLogger(name).warning("asking %s", "http://ada:secret@127.0.0.1:9")
    assert caplog.text.count("asking http://…@127.0.0.1:9") == 2
    assert "secret" not in caplog.text
