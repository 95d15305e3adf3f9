"""A plan says to another process what the first one trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gatehub.backbone.images import ImageRules
from gatehub.training.examples import Examples
from gatehub.training.parallel.plan import Plan, read_plan, write_plan
from gatehub.training.recipe import Recipe
from gatehub.training.sources.huggingface import rows
from tests.tiny import make_backbone
from tests.training.tasks import LABELS, colour_data, light_data


def tell(plan: Plan) -> Plan:
    """Return a plan as it arrives."""
    values, pixels = write_plan(plan)
    return read_plan(json.loads(json.dumps(values)), pixels)


def make_plan(train: Examples, **fields: object) -> Plan:
    backbone = make_backbone()
    plan = Plan(
        backbone="demo",
        weights=None,
        digest=backbone.digest,
        labels=LABELS,
        train=train,
        recipe=Recipe(seed=7, gate_rate=0.1),
        gates="scale",
        norm="frozen",
        start="layer2",
        preprocessing=backbone.preprocessing,
        workers=2,
        decoded_bytes=10**6,
    )
    return replace(plan, **fields)  # type: ignore[arg-type]


def test_a_plan_comes_back_as_it_was() -> None:
    data = colour_data()
    preprocessing = make_backbone().preprocessing
    rules = ImageRules(background=(1, 2, 3))
    plan = make_plan(data.train, preprocessing=replace(preprocessing, image_rules=rules))
    found = tell(plan)
    assert all(map(np.array_equal, found.train.sources, data.train.sources))
    assert (found.train.names, found.train.targets) == (data.train.names, data.train.targets)
    assert replace(found, train=data.train) == plan
    files = replace(data.train, sources=tuple(map(Path, data.train.names)))
    found = tell(replace(plan, train=files, preprocessing=preprocessing))
    assert (found.train.sources, found.preprocessing) == (files.sources, preprocessing)
    several = light_data(8).train
    again = tell(replace(plan, train=several)).train
    assert (again.targets, again.label_count) == (several.targets, several.label_count)


def test_a_plan_finds_the_rows_of_a_data_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    class Split(list[dict[str, dict[str, bytes]]]):
        """Stands in for a split of the package `datasets`, whatever is asked of it."""

    def load(source: str) -> dict[str, Split]:
        loaded.append(source)
        return {
            name: Split({"image": {"bytes": f"{name}{i}".encode()}} for i in range(3))
            for name in ("train", "extra")
        }

    monkeypatch.setattr(rows, "load_splits", load)
    monkeypatch.setattr(rows.Row, "encoded", staticmethod(lambda dataset, column: dataset))
    places = [("train", 2), ("extra", 0), ("train", 1)]
    found = rows.find_rows(rows.Place("hf:acme/eyes", split, "image", i) for split, i in places)
    train = Examples(names=("a", "b", "c"), targets=(0, 1, 0), sources=tuple(found))
    again = tell(make_plan(train)).train
    assert [again.source(i) for i in range(3)] == [b"train2", b"extra0", b"train1"]
    assert loaded == ["hf:acme/eyes"] * 2  # once here, and once for all that is read again
