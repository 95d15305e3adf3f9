"""The bar of predict: seen at a terminal, and nowhere else."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gatehub.cli.app import app

pytest.importorskip("pty")  # Windows has none

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def on_terminal(monkeypatch: pytest.MonkeyPatch, *streams: str) -> Iterator[Callable[[], str]]:
    """Let streams of this process be a terminal; what was shown there is known at the end."""
    leader, follower = os.openpty()
    shown: list[bytes] = []

    def read() -> None:
        # Meanwhile: a terminal that nobody reads holds a few kilobytes, and then whoever writes.
        while True:
            try:
                data = os.read(leader, 4096)
            except OSError:  # how Linux says that nobody writes any more
                return
            if not data:
                return
            shown.append(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(follower, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setenv("TERM", "xterm")
            patch.setenv("COLUMNS", "100")
            for stream in streams:
                patch.setattr(sys, stream, terminal)
            yield lambda: _CODES.sub("", b"".join(shown).decode())
    finally:
        reader.join()
        os.close(leader)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("streams", "options", "bar"),
    [
        (["stderr"], [], True),
        (["stderr"], ["--format", "json"], True),
        (["stderr"], ["--format", "quiet"], False),
        (["stdout", "stderr"], [], False),  # the answers themselves show how far it is
        (["stdout", "stderr"], ["--out", "a.csv"], True),
        (["stdout"], ["--out", "a.csv"], False),
    ],
)
def test_a_bar_counts_images_where_somebody_looks(
    adapter: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    streams: list[str],
    options: list[str],
    bar: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["predict", str(adapter), str(photos), "--batch-size", "2", *options]
    with on_terminal(monkeypatch, *streams) as read, pytest.raises(SystemExit) as ended:
        app(command)
    shown, elsewhere = read(), capsys.readouterr()
    assert ended.value.code == 0
    assert ("classifying" in shown, "5/5" in shown) == (bar, bar)
    assert "classifying" not in elsewhere.out + elsewhere.err
    answers = shown if "stdout" in streams else elsewhere.out
    if not options:
        assert all(f"{number}.png" in answers for number in range(5))
    if "--out" in options:
        assert "5 of 5 images answered" in answers
        assert len(Path("a.csv").read_text().splitlines()) == 6
