"""The cache, which several processes use at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from gatehub.hub.cache import Cache
from tests.hub.plain import REPO, contents, digests, write_folder

COMMIT = "3f" * 32


def test_a_damaged_folder_is_replaced_by_one_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    cache = Cache("hub")
    place = cache.folder(REPO, COMMIT)
    write_folder(place, 2)
    stages = [write_folder(tmp_path / name / COMMIT, 1) for name in "ab"]
    sound = digests(stages[0])
    nodes = [stage.stat().st_ino for stage in stages]
    in_between, other_is_done = Event(), Event()
    rename = os.rename

    def rename_slowly(*paths: Any) -> None:
        """The first has seen the damage, and now the second has all the time that it wants."""
        monkeypatch.setattr(os, "rename", rename)
        in_between.set()
        other_is_done.wait(0.2)
        rename(*paths)

    monkeypatch.setattr(os, "rename", rename_slowly)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(cache.place, REPO, COMMIT, stages[0], sound)
        in_between.wait()
        cache.place(REPO, COMMIT, stages[1], sound)
        assert place.stat().st_ino in nodes  # whoever pulled may read it from now on
        kept = place.stat().st_ino
        other_is_done.set()
        first.result()

    assert place.stat().st_ino == kept
    assert contents(place) == contents(write_folder(tmp_path / "again", 1))


@pytest.mark.parametrize("damage", ["other bytes", "more", "less", "a link"])
def test_a_copy_is_proven_or_nothing(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    cache, stage = Cache("hub"), tmp_path / "stage"
    stage.mkdir()
    folder = write_folder(cache.folder(REPO, COMMIT), 1)
    files = digests(folder)
    card = folder / "README.md"
    if damage == "other bytes":
        card.write_bytes(card.read_bytes().upper())
    elif damage == "more":
        (folder / "notes.txt").write_text("")
    else:
        content = card.read_bytes()
        card.unlink()
        if damage == "a link":
            (tmp_path / "card").write_bytes(content)
            card.symlink_to(tmp_path / "card")

    assert cache.copy(REPO, COMMIT, stage, files) is None
    assert contents(stage) == {}

    sound = write_folder(cache.folder(REPO, "ab" * 32), 1)
    assert cache.copy(REPO, "ab" * 32, stage, files) == files
    assert contents(stage) == contents(sound)
