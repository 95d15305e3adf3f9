"""train and eval with several tables of one task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gatehub.adapter import Adapter
from tests.cli.conftest import Gatehub

LABELS = {"animals": ["cat", "dog"], "colours": ["red"]}


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Sixteen images, and two tables of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows: dict[str, list[str]] = {"animals": ["path,label"], "colours": ["path,label"]}
    for i in range(16):
        pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows["animals"].append(f"{i}.png,{'cat' if i % 2 else 'dog'}")
        if i % 3 == 0:
            rows["colours"].append(f"{i}.png,red")
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text("\n".join(lines))
    return [folder / f"{name}.csv" for name in rows]


def test_a_task_of_two_tables_is_trained_and_measured(
    gatehub: Gatehub, tables: list[Path], tmp_path: Path
) -> None:
    data = [word for table in tables for word in ("--data", table)]
    out = tmp_path / "pets"
    options = ("--backbone", "demo", "--task", "pets", "--out", out, "--input-size", 32)
    once = ("--epochs", 1, "--gates", "scale", "--workers", 0, "--val-fraction", 0.5)
    ran = gatehub("train", *options, *once, "--multi-label", *data)
    assert ran.status == 0, ran.err
    told = " ".join(ran.err.split())
    assert "10 of 16 images do not stand in every table" in told
    adapter = Adapter.load(out)
    assert adapter.labels == ("cat", "dog", "red")
    assert [adapter.config.training[name] for name in ("data", "data_2")] == list(map(str, tables))
    turned = [word for table in reversed(tables) for word in ("--data", table)]
    shown = gatehub("eval", out, *turned, "--format", "json").json
    assert (shown["split"], shown["accuracy"]) == ("val", adapter.config.metrics["accuracy"])
    refused = gatehub("train", *options, *once, "--force", *data)
    assert refused.status == 1
    assert "expected one label an image" in " ".join(refused.err.split())
    mixed = gatehub("train", *options, *once, *data, "--data", "sklearn:digits")
    assert mixed.status == 1
    assert "Several data sources are given" in mixed.err


def test_an_adapter_keeps_away_from_the_tables_of_its_data(
    gatehub: Gatehub, tables: list[Path]
) -> None:
    data = [word for table in tables for word in ("--data", table)]
    ran = gatehub("train", "--backbone", "demo", *data, "--task", "x", "--out", tables[1].parent)
    assert ran.status == 1
    assert "lie in" in ran.err
    assert str(tables[0]) in ran.err or str(tables[1]) in ran.err
