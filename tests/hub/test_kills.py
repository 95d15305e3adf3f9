"""Pushes and pulls that are killed at random moments: old or new, whole, and simply repeated.

In CI one of each; `-m kills` runs 25 of each (see CONTRIBUTING.md).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from gatehub.adapter import Adapter
from gatehub.hub import list_revisions, open_hub, pull, push
from gatehub.hub.folder.hub import FolderHub
from gatehub.hub.folder.upkeep import verify_hub
from tests.hub.plain import contents
from tests.hub.stores import place, serve_s3
from tests.hub_server.serve import serve_hub
from tests.hub_server.state import TOKEN
from tests.source_tree import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX does")
COUNTS = [1, pytest.param(25, marks=pytest.mark.kills)]


class Victims:
    """A process that forks and kills; see tests.hub.victim."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._ask(None) == "ready"

    def _ask(self, job: dict[str, object] | None) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if job is not None:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def run(self, **job: object) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._ask(job))
        return answer


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Hub, a folder and an S3, and an environment in which a child finds them."""
    tmp_path = tmp_path_factory.mktemp("hubs")
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        patched.setenv("HF_TOKEN", TOKEN)
        patched.setenv("HF_HOME", str(tmp_path / "hf"))
        patched.setenv("HF_HUB_DISABLE_XET", "1")
        patched.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
        patched.setattr(constants, "HF_HUB_DISABLE_XET", True)
        stack.enter_context(serve_s3(patched))
        hub = stack.enter_context(serve_hub())
        yield {"hub": hub.url, "disk": place("disk", tmp_path), "s3": place("s3", tmp_path)}


@pytest.fixture(scope="module")
def victims(hubs: dict[str, str]) -> Iterator[Victims]:
    command = [sys.executable, "-m", "tests.hub.victim"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Victims(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def adapters(tiny_adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [
        tiny_adapter.save(folder / dtype, dtype=dtype, attachments={"training.jsonl": b"{}\n" * n})
        for dtype, n in (("float32", 1), ("float16", 300_000))
    ]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["hub", "disk", "s3"])
def test_killed_pushes(
    hubs: dict[str, str],
    victims: Victims,
    adapters: list[Path],
    kind: str,
    count: int,
    tmp_path: Path,
) -> None:
    hub, (old, new), draw = hubs[kind], adapters, random.Random(count)
    push(old, "acme/whole", hub=hub)
    whole = victims.run(do="push", folder=str(new), name="acme/whole", hub=hub, kill_after_s=None)[
        "seconds"
    ]
    landed = 0
    for trial in range(count):
        name = f"acme/push-{count}-{trial}"
        push(old, name, hub=hub)
        before = [row.commit for row in list_revisions(name, hub)]
        victims.run(
            do="push", folder=str(new), name=name, hub=hub, kill_after_s=draw.uniform(0, whole)
        )
        after = [row.commit for row in list_revisions(name, hub)]
        assert after[-len(before) :] == before
        assert len(after) - len(before) in (0, 1)
        there = pull(name, hub=hub, out=tmp_path / f"{trial}-there")
        assert contents(there) == contents(new if len(after) > len(before) else old)
        landed += len(after) > len(before)

        result = push(new, name, hub=hub)

        assert result.created is (len(after) == len(before))
        assert len(list_revisions(name, hub)) == len(before) + 1
        assert contents(pull(name, hub=hub, out=tmp_path / f"{trial}-new")) == contents(new)
    store = open_hub(hub)
    if isinstance(store, FolderHub):
        assert verify_hub(store).problems == ()
    if count > 10:
        assert count - landed > 0  # not all of them came too late


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["hub", "disk", "s3"])
def test_killed_pulls(
    hubs: dict[str, str],
    victims: Victims,
    adapters: list[Path],
    kind: str,
    count: int,
    tmp_path: Path,
) -> None:
    hub, new, draw = hubs[kind], adapters[1], random.Random(count)
    push(new, "acme/pulled", hub=hub)
    whole = victims.run(
        do="pull", folder=str(tmp_path / "whole"), name="acme/pulled", hub=hub, kill_after_s=None
    )["seconds"]
    absent = 0
    for trial in range(count):
        out = tmp_path / f"place-{trial}" / "out"
        victims.run(
            do="pull",
            folder=str(out),
            name="acme/pulled",
            hub=hub,
            kill_after_s=draw.uniform(0, whole),
        )
        if out.exists():
            assert contents(out) == contents(new)
        else:
            absent += 1
        assert contents(pull("acme/pulled", hub=hub, out=out)) == contents(new)
        assert {path.name for path in out.parent.iterdir() if path.name[0] != "."} == {"out"}
    if count > 10:
        assert absent
