"""S3 behind a network that loses, cuts and damages: success, or a sentence and nothing partial."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import fsspec
import pytest

import gatehub.hub.folder.outages
from gatehub.adapter import Adapter
from gatehub.errors import GatehubError, HubError, HubUnreachableError
from gatehub.hub import list_adapters, list_revisions, open_hub, pull, push
from gatehub.hub.folder.upkeep import verify_hub
from tests.hub.folder.faulty_store import stand_before
from tests.hub.plain import REPO, contents
from tests.hub.stores import place, serve_s3
from tests.hub_server.faults import FOREVER, Fault

REFS, BLOBS, MANIFESTS = "/refs/heads/", "/blobs/", "/manifests/"


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Fault]]:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    with serve_s3(monkeypatch), stand_before(os.environ["AWS_ENDPOINT_URL"]) as (url, faults):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield faults
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def where(tmp_path: Path) -> str:
    return place("s3", tmp_path)


@pytest.fixture
def other(tiny_adapter: Adapter, tmp_path: Path) -> Path:
    return tiny_adapter.with_metrics({"accuracy": 0.25}).save(tmp_path / "other")


PUSH_FAULTS = [
    Fault(REFS, method="PUT", lose=True),
    Fault(REFS, method="PUT", drop=True),
    Fault(REFS, method="PUT", status=500),
    Fault(REFS, method="PUT", status=503),
    Fault(BLOBS, method="PUT", lose=True),
    Fault(BLOBS, method="PUT", status=503),
    Fault(BLOBS, method="PUT", drop=True),
    Fault(MANIFESTS, method="PUT", lose=True),
    Fault(MANIFESTS, method="PUT", status=500),
    Fault("list-type|/adapters$", method="GET", status=503),
    Fault(BLOBS, method="HEAD", drop=True),
]
PULL_FAULTS = [
    Fault(BLOBS, method="GET", cut=1_000),
    Fault(BLOBS, method="GET", flip=700),
    Fault(BLOBS, method="GET", drop=True),
    Fault(BLOBS, method="GET", status=503),
    Fault(BLOBS, method="GET", slow_s=0.2),
    Fault(MANIFESTS, method="GET", cut=10),
    Fault(MANIFESTS, method="GET", flip=10),
    Fault(REFS, method="GET", flip=3),
    Fault(REFS, method="GET", status=500),
]


def some(faults: list[Fault]) -> list[object]:
    """Every third fault in each run; all of them with `-m slow`."""
    return [
        fault if number % 3 == 0 else pytest.param(fault, marks=pytest.mark.slow)
        for number, fault in enumerate(faults)
    ]


def name(fault: Fault) -> str:
    what = [k for k in ("lose", "drop", "cut", "flip", "status", "slow_s") if getattr(fault, k)]
    return "-".join((fault.method, fault.path, *what[:1]))


@pytest.mark.parametrize("fault", some(PUSH_FAULTS), ids=name)
def test_one_fault_does_not_stop_a_push(
    faults: list[Fault], where: str, adapter_folder: Path, other: Path, fault: Fault
) -> None:
    first = push(adapter_folder, REPO, hub=where).commit
    faults.append(fault := replace(fault, hit=Event()))

    result = push(other, REPO, hub=where, tag="v1")

    assert fault.hit.wait(5)
    assert result.created
    assert [row.commit for row in list_revisions(REPO, where)] == [result.commit, first]
    assert verify_hub(open_hub(where)).problems == ()
    assert contents(pull(f"{REPO}@v1", hub=where)) == contents(other)


@pytest.mark.parametrize("fault", some(PULL_FAULTS), ids=name)
def test_one_fault_does_not_stop_a_pull(
    faults: list[Fault], where: str, adapter_folder: Path, tmp_path: Path, fault: Fault
) -> None:
    push(adapter_folder, REPO, hub=where)
    faults.append(fault := replace(fault, hit=Event()))
    out = pull(REPO, hub=where, out=tmp_path / "place" / "out")
    assert fault.hit.wait(5)
    assert contents(out) == contents(adapter_folder)
    assert os.listdir(out.parent) == ["out"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [f for f in PUSH_FAULTS if f.method == "PUT" and f.path != MANIFESTS], ids=name
)
def test_a_push_that_never_gets_through_is_a_sentence(
    faults: list[Fault], where: str, adapter_folder: Path, other: Path, fault: Fault
) -> None:
    first = push(adapter_folder, REPO, hub=where).commit
    faults.append(fault := replace(fault, hit=Event(), times=FOREVER))
    with pytest.raises(HubError) as caught:
        push(other, REPO, hub=where)
    assert "\n" not in str(caught.value)
    faults.clear()
    rows = [row.commit for row in list_revisions(REPO, where)]
    assert rows[-1:] == [first]
    assert len(rows) in (1, 2)
    assert verify_hub(open_hub(where)).problems == ()
    push(other, REPO, hub=where)
    assert len(list_revisions(REPO, where)) == 2
    assert contents(pull(REPO, hub=where)) == contents(other)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [f for f in PULL_FAULTS if f.cut or f.flip], ids=name)
def test_a_pull_that_never_gets_through_is_a_sentence(
    faults: list[Fault], where: str, adapter_folder: Path, tmp_path: Path, fault: Fault
) -> None:
    push(adapter_folder, REPO, hub=where)
    faults.append(replace(fault, hit=Event(), times=FOREVER))
    (tmp_path / "place").mkdir()
    with pytest.raises(GatehubError) as caught:
        pull(REPO, hub=where, out=tmp_path / "place" / "out")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path / "place") == []


def test_one_repository_that_cannot_be_read_does_not_hide_the_others(
    faults: list[Fault], where: str, adapter_folder: Path
) -> None:
    push(adapter_folder, REPO, hub=where)
    push(adapter_folder, "acme/sound", hub=where)
    faults.append(Fault(f"{REPO}{MANIFESTS}", method="GET", status=403, times=FOREVER))
    told: list[str] = []
    assert [row.repo for row in list_adapters(where, report=told.append)] == ["acme/sound"]
    (sentence,) = told
    assert sentence.startswith(f"{REPO} is left out: ")


@pytest.mark.parametrize("fault", [Fault(BLOBS, method="GET"), Fault(REFS, method="PUT")], ids=name)
def test_a_request_that_is_never_answered_is_sent_again(
    faults: list[Fault],
    where: str,
    adapter_folder: Path,
    other: Path,
    fault: Fault,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gatehub.hub.folder.outages, "S3_TIMEOUT_S", 1.0)
    push(adapter_folder, REPO, hub=where)
    faults.append(fault := replace(fault, hit=Event(), slow_s=4))
    push(other, REPO, hub=where)
    assert contents(pull(REPO, hub=where)) == contents(other)
    assert fault.hit.wait(5)
    assert len(list_revisions(REPO, where)) == 2


def test_a_store_that_never_answers_is_given_up(
    faults: list[Fault], where: str, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatehub.hub.folder.outages, "S3_TIMEOUT_S", 0.5)
    monkeypatch.setattr(gatehub.hub.folder.outages, "_PATIENCE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        for ask in (lambda: pull(REPO, hub=where), lambda: push(adapter_folder, REPO, hub=where)):
            began = time.monotonic()
            with pytest.raises(HubUnreachableError, match="Read timeout on endpoint"):
                ask()
            assert time.monotonic() - began < 10
