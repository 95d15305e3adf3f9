"""A push that is killed leaves the old state whole or the new one, and is simply repeated."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gatehub.hub.folder.hub import FolderHub
from tests.hub.plain import REPO, contents, fetch, list_rows, push, write_folder
from tests.source_tree import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills as POSIX does")


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut needs, a kill does not; and it is most of a push's time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


PUSHER = [sys.executable, "-m", "tests.hub.pusher"]


def check_and_repeat(root: Path, old: Path, new: Path) -> bool:
    """Check a hub that held `old` and on which a push of `new` was killed; repeat the push.

    Returns:
        Whether the killed push had landed.
    """
    hub = FolderHub(root)
    rows = hub.list_revisions(REPO)
    landed = len(rows) == 2
    assert landed or len(rows) == 1
    assert hub.resolve(REPO, "main") == rows[0].commit
    assert fetch(hub, rows[0].commit, root / ".now") == contents(new if landed else old)

    result = push(hub, new)

    assert result.created is not landed
    newest, oldest = hub.list_revisions(REPO)
    assert (newest.commit, newest.parent) == (result.commit, oldest.commit)
    assert fetch(hub, newest.commit, root / ".new") == contents(new)
    assert fetch(hub, oldest.commit, root / ".old") == contents(old)
    return landed


def test_killed_before_each_file_operation(tmp_path: Path) -> None:
    old, new = write_folder(tmp_path / "old", 1), write_folder(tmp_path / "new", 2)
    push(FolderHub(tmp_path / "base"), old)
    (tmp_path / "hubs").mkdir()

    places = [tmp_path / name for name in ("base", "hubs", "new")]
    subprocess.run([*PUSHER, "die", *map(str, places)], cwd=ROOT, check=True, timeout=300)

    *killed, last = [
        check_and_repeat(hub, old, new) for hub in sorted((tmp_path / "hubs").iterdir())
    ]
    assert last
    assert killed == sorted(killed)  # not landed, and from one operation on landed
    assert killed.count(False) > 10
    assert killed.count(True) > 1


def test_the_first_push_ever_killed_before_each_file_operation(tmp_path: Path) -> None:
    new = write_folder(tmp_path / "new", 2)
    for name in ("base", "hubs"):
        (tmp_path / name).mkdir()

    places = [tmp_path / name for name in ("base", "hubs", "new")]
    subprocess.run([*PUSHER, "die", *map(str, places)], cwd=ROOT, check=True, timeout=300)

    hubs = [FolderHub(root) for root in sorted((tmp_path / "hubs").iterdir())]
    assert len(hubs) > 20
    for hub in hubs:
        rows = list_rows(hub)
        result = push(hub, new)
        assert [row.commit for row in rows] == ([] if result.created else [result.commit])
        assert len(hub.list_revisions(REPO)) == 1


def test_killed_at_random_moments(tmp_path: Path) -> None:
    size = 8_000_000
    old, new = write_folder(tmp_path / "old", 1), write_folder(tmp_path / "new", 2, size=size)
    push(FolderHub(tmp_path / "base"), old)
    moments = random.Random(0)

    for trial in range(6):
        hub = tmp_path / f"hub{trial}"
        shutil.copytree(tmp_path / "base", hub)
        with subprocess.Popen(
            [*PUSHER, "race", str(hub), str(new)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.stdin.write("go\n")
            process.stdin.flush()
            time.sleep(moments.uniform(0, 0.06))
            process.kill()
        check_and_repeat(hub, old, new)
