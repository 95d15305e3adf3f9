"""A run that is cut off at any stage is gone on with, and ends as if nothing had happened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gatehub.backbone import Backbone
from gatehub.training import loop, report, train
from gatehub.training.recipe import Recipe
from gatehub.training.start import beginning
from gatehub.training.train import train_adapter
from tests.training.tasks import colour_data

RECIPE = Recipe(epochs=2, batch_size=16, seed=5, keep="last")


def run(backbone: Backbone, out: Path, *, resume: bool = False) -> None:
    train_adapter(backbone, colour_data(), out, task="colours", recipe=RECIPE, resume=resume)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "colours"
    run(tiny_backbone, out)
    return contents(out)


def interrupt_at(call: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is cut off in its nth call: before it has done anything."""
    calls = 0

    def cut(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    return cut


# What is cut off, in which call, and whether an epoch was whole by then.
STAGES: list[tuple[object, str, int, bool]] = [
    (os, "replace", 1, False),  # while the place is claimed
    (beginning, "gather_inputs", 1, False),
    (beginning, "find_rates", 1, False),
    (loop, "train_epoch", 1, False),
    (loop, "write_checkpoint", 1, False),
    (loop, "train_epoch", 2, True),
    (os, "replace", 3, True),  # the second checkpoint
    (report, "draw_curve", 1, True),
    (os, "fsync", 9, True),  # while the adapter is written
    (train, "remove_checkpoint", 1, True),
]


@pytest.mark.parametrize(("where", "what", "call", "kept"), STAGES)
def test_a_run_that_is_cut_off_is_gone_on_with(
    tiny_backbone: Backbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, bytes],
    where: object,
    what: str,
    call: int,
    kept: bool,
) -> None:
    out = tmp_path / "colours"
    with monkeypatch.context() as patched:
        patched.setattr(where, what, interrupt_at(call, getattr(where, what)))
        with pytest.raises(KeyboardInterrupt):
            run(tiny_backbone, out)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    state = [name for name in left if not name.startswith("colours/") and name != "colours"]
    assert state == (
        ["colours.training", "colours.training/checkpoint.safetensors"] if kept else []
    )
    run(tiny_backbone, out, resume=True)
    assert contents(out) == whole
    assert os.listdir(tmp_path) == ["colours"]
