"""`gatehub demo` whole: what it promises is what it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

import gatehub.cli.demo as gatehub_demo
from tests.cli.conftest import Gatehub


@pytest.mark.parametrize("tasks", [["digits"], pytest.param([], marks=pytest.mark.slow)])
def test_demo_keeps_its_promises(
    gatehub: Gatehub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str]
) -> None:
    """One task of it in every run, the whole of it with `-m slow`."""
    sources = gatehub_demo.TASKS
    tasks = tasks or list(sources)
    monkeypatch.setattr(gatehub_demo, "TASKS", {task: sources[task] for task in tasks})
    kept = tmp_path / "kept"
    ran = gatehub("demo", "--keep", kept, "--format", "json").json
    rows = {row["task"]: row for row in ran["tasks"]}
    assert list(rows) == tasks
    for row in rows.values():
        assert row.keys() == {
            "task",
            "classes",
            "linear_accuracy",
            "accuracy",
            "adapter_bytes",
            "checkpoint_bytes",
        }
        assert row["accuracy"] > row["linear_accuracy"]
        assert row["adapter_bytes"] < 0.15 * row["checkpoint_bytes"]
    digits = rows["digits"]
    assert digits["accuracy"] >= 0.97
    assert digits["accuracy"] >= digits["linear_accuracy"] + 0.05
    assert ran["served"] == 60 * len(tasks)
    assert ran["mismatches"] == 0
    assert ran["onnx_max_abs_diff"] < 1e-4
    for task in rows:
        folder = kept / "pulled" / task
        assert gatehub("verify", folder).status == 0
    assert gatehub("verify", kept / "digits.onnx").status == 0
