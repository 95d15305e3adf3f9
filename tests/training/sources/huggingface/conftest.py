"""Keeps what data sets leave behind apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.sources.huggingface.splits import datasets


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what is loaded from the cache of whoever runs the tests, and ask no Hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
