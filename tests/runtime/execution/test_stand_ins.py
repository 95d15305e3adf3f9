"""Tasks answer at every image size in the memory that they have, if need be in another form."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.compiler.kernel_forms import KernelForms
from gatehub.compiler.kernels import can_pack
from gatehub.errors import MissingFileError
from gatehub.gates.fold import fold
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution import programs
from gatehub.runtime.execution.execution import Execution
from tests.compiler.networks import NETWORKS, SIDE, Wired, make_task, wire
from tests.parity import Tolerance, assert_parity
from tests.runtime.execution.known_networks import (
    make_wide_backbone,
    make_wide_task,
    want_an_order_for_each_size,
)
from tests.tiny import make_trained, random_images

needs_packing = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this torch has no packed kernels on this processor"
)
ANOTHER_ORDER = Tolerance(name="another order", relative=1e-4)


def noise(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randn(count, 3, side, side, generator=generator)


def fold_one(backbone: Backbone, adapter: Adapter) -> int:
    """Return the bytes of a task that is pinned where memory has no limit."""
    engine = Engine(backbone, dtype="float32")
    engine.load("one", adapter)
    engine.evict("one")
    engine.pin("one")
    return engine.memory()[0].bytes


@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pinned_task_answers_at_every_size_in_the_memory_of_one_form(
    monkeypatch: pytest.MonkeyPatch, dtype: str, room: int
) -> None:
    want_an_order_for_each_size(monkeypatch, home=64)
    backbone = make_wide_backbone()
    adapter = make_wide_task(backbone, "one")
    asked = [(1, 64), (4, 48), (1, 32), (2, 64), (1, 48)]
    sizing, most = Engine(backbone, dtype=dtype), 0
    sizing.load("one", adapter)
    for count, side in asked:
        sizing.evict("one")
        sizing.predict("one", noise(count, side))
        most = max(most, sizing.memory()[0].bytes)
    engine = Engine(backbone, dtype=dtype, folded_bytes=room * most, wait_s=60)
    engine.load("one", adapter)
    engine.pin("one")
    tolerance = ANOTHER_ORDER if dtype == "float32" else Tolerance(name=dtype, relative=0.06)
    model = fold(backbone, adapter)
    for count, side in asked:
        images = noise(count, side)
        expected = model(images)
        assert_parity(engine.predict("one", images), expected, tolerance)
        mixed = torch.stack(engine.predict_mixed(["one"] * count, images))
        assert_parity(mixed, expected, tolerance)
        assert_parity(engine.predict_all(images, ["one"])["one"], expected, tolerance)
        tier = engine.memory()[0]
        assert tier.bytes <= (tier.budget_bytes or 0)
        assert tier.pinned == 1
    assert engine.memory()[0].entries == room
    assert (engine.memory()[0].stand_ins > 0) == (room == 1)
    engine.unpin("one")
    before = engine.memory()[0]
    engine.predict("one", noise(1, 32))  # who is not pinned gets the order for the size at hand
    after = engine.memory()[0]
    assert (after.misses - before.misses, after.stand_ins) == (1, before.stand_ins)


@needs_packing
def test_what_a_task_shares_is_in_the_order_for_the_size_at_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want_an_order_for_each_size(monkeypatch, home=64)
    backbone = make_wide_backbone()
    model = make_trained(backbone, start="layer4")
    adapter = Adapter.from_model(model, task="late")
    merged = MergedBackbone(backbone)
    execution, plan = Execution(merged, torch.float32), merged.plan_task(adapter)
    here, there = (execution.forms(1, (3, side, side)) for side in (64, 48))
    at = execution._sizes.at((3, 48, 48))
    task, fitting = (execution.fold(adapter, plan, forms) for forms in (here, there))
    assert execution._fit(fitting, at, 1) is fitting.weights
    fitted = execution._fit(task, at, 1)
    assert fitted.keys() == task.weights.keys()
    for name, weight in fitted.items():
        assert weight is (task if name in task.own else fitting).weights[name]
    images = noise(1, 48)
    assert_parity(execution.run(task, images), fold(backbone, adapter)(images), ANOTHER_ORDER)


@needs_packing
def test_a_task_whose_weights_are_too_large_in_one_order_answers_in_the_usual_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    want_an_order_for_each_size(monkeypatch, home=64, more=64)
    backbone = make_wide_backbone()
    adapters = [make_wide_task(backbone, task) for task in ("one", "two")]
    engine = Engine(backbone, dtype="float32", folded_bytes=fold_one(backbone, adapters[0]))
    for adapter in adapters:
        engine.load(adapter.task, adapter)
    images = noise(2, 48)
    for adapter in adapters * 2:
        expected = fold(backbone, adapter)(images)
        assert_parity(engine.predict(adapter.task, images), expected, ANOTHER_ORDER)
    found = engine.predict_mixed(["one", "two"], images)
    for row, adapter in enumerate(adapters):
        assert_parity(found[row], fold(backbone, adapter)(images)[row], ANOTHER_ORDER)


def test_a_pinned_task_answers_at_every_size_when_its_gates_are_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    want_an_order_for_each_size(monkeypatch, home=64)
    backbone = make_wide_backbone()
    one, two = (make_wide_task(backbone, task) for task in ("one", "two"))
    folders = [adapter.save(tmp_path / adapter.task, dtype="float32") for adapter in (one, two)]
    sizing = Engine(backbone, dtype="float32")
    sizing.load("one", folders[0])
    gates = sizing.memory()[1].bytes
    engine = Engine(backbone, dtype="float32", gates_bytes=gates)
    engine.load("one", folders[0])
    engine.pin("one")
    engine.load("two", folders[1])  # the gates of the first one have to go
    shutil.rmtree(folders[0])
    images = noise(1, 48)
    expected = fold(backbone, one)(images)
    assert_parity(engine.predict("one", images), expected, ANOTHER_ORDER)
    engine.unpin("one")
    with pytest.raises(MissingFileError):
        engine.predict("one", images)


@pytest.mark.parametrize("gates", ["scale", "full"])
def test_pinned_tasks_answer_together_in_the_memory_that_each_needs_alone(
    tiny_backbone: Backbone, gates: str
) -> None:
    """Even those that could share a pass, for whose factors there is no room."""
    adapters = {
        task: Adapter.from_model(make_trained(tiny_backbone, gates=gates, seed=seed), task=task)
        for seed, task in enumerate(("a", "b", "c"))
    }
    need = fold_one(tiny_backbone, adapters["a"])
    engine = Engine(tiny_backbone, dtype="float32", folded_bytes=3 * need, wait_s=60)
    for task, adapter in adapters.items():
        engine.load(task, adapter)
        engine.pin(task)
    asked, images = ["a", "b", "c", "a"], random_images(4)
    for row, found in enumerate(engine.predict_mixed(asked, images)):
        expected = fold(tiny_backbone, adapters[asked[row]])(images)[row]
        assert_parity(found, expected, ANOTHER_ORDER)
    assert engine.memory()[0].bytes == 3 * need


@pytest.mark.parametrize("pinned", [False, True])
def test_forms_go_with_the_image_sizes_that_want_them(
    monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    monkeypatch.setattr(programs, "OTHER_SIZES", 2)
    want_an_order_for_each_size(monkeypatch, home=64)
    backbone = make_wide_backbone()
    adapter = Adapter.from_model(make_trained(backbone, start="layer4"), task="one")
    engine = Engine(backbone, dtype="float32")
    engine.load("one", adapter)
    execution = engine._current.find("one").execution
    formed = execution._weights._formed
    engine.predict("one", noise(1, 64))  # its own size always stays
    usual, kernels = engine.memory()[0].entries, []
    sides = (32, 48, 80, 96)
    for side in sides:
        if pinned and side == 32:
            engine.evict("one")
        engine.predict("one", noise(1, side))
        if pinned and side == 32:
            engine.pin("one")  # in the form of the backbone's own size, too
        kernels.append(len(formed))
    tier = engine.memory()[0]
    assert tier.entries == (1 if pinned else usual) + 2
    assert (tier.evictions > 0) == pinned  # nothing had to go for others
    assert kernels[1] == kernels[2] == kernels[3]
    assert execution._sizes.forms_in_use() == {
        execution.forms(batch, (3, side, side))
        for side, batch in ((64, 1), (64, 5), *((s, 1) for s in sides[2:]))
    }
    expected = fold(backbone, adapter)
    for side in (32, 64, 96):
        images = noise(1, side)
        assert_parity(engine.predict("one", images), expected(images), ANOTHER_ORDER)


@pytest.mark.parametrize("network", ["in_a_row", "changes_a_view_that_is_read_later"])
def test_a_form_that_serves_all_sizes_stays(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which kernels are packed, and in the usual one of torch."""
    monkeypatch.setattr(programs, "OTHER_SIZES", 1)
    monkeypatch.setattr(programs, "find_forms", lambda *_, **__: KernelForms())
    backbone = NETWORKS[network]()
    engine = Engine(backbone, dtype="float32")
    engine.load("task", make_task(backbone, "task"))
    for side in (14, 16, 18):
        engine.predict("task", noise(1, side))
    assert engine.memory()[0].misses == 1


def reads_a_kernel_on_other_images(net: Wired, x: torch.Tensor) -> torch.Tensor:
    y = net.end(net.body(net.begin(x)))
    return y if x.shape[2] == SIDE + 8 else y * net.body.weight.mean()


def test_no_size_packs_what_another_reads_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    want_an_order_for_each_size(monkeypatch, home=SIDE)
    backbone = wire(reads_a_kernel_on_other_images)
    adapter = make_task(backbone, "task")
    merged = MergedBackbone(backbone)
    execution, plan = Execution(merged, torch.float32), merged.plan_task(adapter)
    sides = (SIDE, SIDE + 8, SIDE + 16)
    model = fold(backbone, adapter)
    for folded_for in sides:
        forms = execution.forms(2, (3, folded_for, folded_for))
        task = execution.fold(adapter, plan, forms)
        for side in sides:
            images = noise(2, side)
            assert_parity(execution.run(task, images), model(images), ANOTHER_ORDER)
