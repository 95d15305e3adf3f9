"""Loads: all or nothing, once for all who want the same, and checked before anybody is answered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.probe import Probe
from gatehub.backbone import Backbone
from gatehub.errors import EngineError, SelfCheckError, SiteError
from gatehub.gates import merged_backbone as merged_module
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution import dtypes
from gatehub.runtime.execution.execution import Execution
from tests.tiny import make_trained, random_images


@pytest.fixture
def probed(tiny_backbone: Backbone, tiny_adapter: Adapter) -> Adapter:
    return tiny_adapter.with_probe(tiny_backbone)


def spoil(adapter: Adapter) -> Adapter:
    """The same adapter with a probe that it does not answer."""
    assert adapter.probe is not None
    rows = [[-value for value in row] for row in adapter.probe.logits]
    wrong = Probe.of(rows, dtype=adapter.probe.dtype)
    return replace(adapter, config=replace(adapter.config, probe=wrong))


def test_a_task_that_answers_its_probe_otherwise_is_refused(
    tiny_backbone: Backbone, probed: Adapter
) -> None:
    engine = Engine(tiny_backbone)
    before = engine.load("birds", probed)
    memory = engine.memory()
    with pytest.raises(
        SelfCheckError,
        match=r"'birds' answers its probe differently on .*float32: it drifts by \d.* "
        r"expected at most 0\.01",
    ):
        engine.load("birds", spoil(probed))
    assert engine.tasks() == (before,)
    after = engine.memory()
    assert [(t.bytes, t.entries) for t in after] == [(t.bytes, t.entries) for t in memory]
    engine.predict("birds", random_images())


def test_a_stored_probe_survives_the_file(
    tiny_backbone: Backbone, probed: Adapter, tmp_path: Path
) -> None:
    folder = probed.save(tmp_path / "birds", dtype="float16")
    engine = Engine(tiny_backbone)
    assert Adapter.load(folder).probe == probed.probe
    engine.load("birds", folder)


def test_auto_takes_bfloat16_where_there_are_matrix_units_and_the_probe_agrees(
    tiny_backbone: Backbone,
    tiny_adapter: Adapter,
    probed: Adapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dtypes, "has_matrix_units", lambda device: True)
    engine = Engine(tiny_backbone)
    assert engine.load("probed", probed).dtype == "bfloat16"
    assert engine.load("unprobed", tiny_adapter).dtype == "float32"
    monkeypatch.setitem(dtypes._TOLERANCES, torch.bfloat16, 0.0)
    assert engine.load("drifting", probed).dtype == "float32"
    images = random_images(2)
    mixed = engine.predict_mixed(["probed", "drifting"], images)
    for task, image, logits in zip(["probed", "drifting"], images, mixed, strict=True):
        assert torch.equal(logits, engine.predict(task, image[None])[0])


def test_auto_is_float32_without_matrix_units(
    tiny_backbone: Backbone, probed: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtypes, "has_matrix_units", lambda device: False)
    assert Engine(tiny_backbone).load("birds", probed).dtype == "float32"


def test_another_dtype_is_refused(tiny_backbone: Backbone) -> None:
    with pytest.raises(EngineError, match="dtype is 'int8'; expected one of auto, float32"):
        Engine(tiny_backbone, dtype="int8")


def test_ten_loads_at_once_fold_once(
    tiny_backbone: Backbone, tiny_adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folds = []
    everybody = threading.Barrier(10)
    original = Execution.fold

    def fold(self: Execution, *arguments: object) -> object:
        folds.append(1)
        threading.Event().wait(0.1)  # long enough for all others to come
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Execution, "fold", fold)
    engine = Engine(tiny_backbone)
    infos = []

    def load() -> None:
        everybody.wait(10)
        infos.append(engine.load("birds", tiny_adapter))

    threads = [threading.Thread(target=load) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folds == [1]
    assert len({info.generation for info in infos}) == 1
    assert len(infos) == 10


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_load_asks_once_for_whatever_it_needs(
    attempts: int, tiny_backbone: Backbone, probed: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two dtypes, if it does not answer its probe in the first, and still one load."""
    monkeypatch.setattr(dtypes, "has_matrix_units", lambda device: attempts == 2)
    monkeypatch.setitem(dtypes._TOLERANCES, torch.bfloat16, 0.0)
    engine = Engine(tiny_backbone)
    engine.load("birds", probed)  # the network is recorded, for heads of its own
    before = [tier.hits + tier.misses for tier in engine.memory()]
    asked: Counter[str] = Counter()

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*arguments: object) -> object:
            asked[name] += 1
            return original(*arguments)

        monkeypatch.setattr(owner, name, counted)

    count(MergedBackbone, "plan")
    count(MergedBackbone, "plan_head")
    count(merged_module, "check_backbone")
    engine.load("crows", probed)
    assert asked == {"plan": 1, "plan_head": 1, "check_backbone": 1}
    after = [tier.hits + tier.misses for tier in engine.memory()]
    assert [new - old for new, old in zip(after, before, strict=True)] == [attempts, attempts]


def test_a_fold_that_fails_half_way_leaves_what_was_there(
    tiny_backbone: Backbone, tiny_adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_backbone)
    before = engine.load("birds", tiny_adapter)
    images = random_images()
    answers = engine.predict("birds", images)
    entries = [tier.entries for tier in engine.memory()]
    other = Adapter.from_model(make_trained(tiny_backbone, seed=8), task="birds")
    left = [5]
    original = merged_module.multiply

    def multiply(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError("no memory for this kernel")
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(merged_module, "multiply", multiply)
    with pytest.raises(MemoryError):
        engine.load("birds", other)
    assert engine.tasks() == (before,)
    assert torch.equal(engine.predict("birds", images), answers)
    assert [tier.entries for tier in engine.memory()] == entries
    after = engine.load("birds", other)
    assert after.generation > before.generation


def test_of_two_loads_under_one_name_the_later_one_stays(
    tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = (
        Adapter.from_model(make_trained(tiny_backbone, seed=seed), task="t") for seed in (4, 5)
    )
    begun, go = threading.Event(), threading.Event()
    original: Callable[..., dict[str, torch.Tensor]] = MergedBackbone.fold

    def fold(
        self: MergedBackbone, task: object, plan: object, **kwargs: object
    ) -> dict[str, torch.Tensor]:
        if getattr(task, "digest", None) == slow.digest:
            begun.set()
            assert go.wait(10)
        return original(self, task, plan, **kwargs)

    monkeypatch.setattr(MergedBackbone, "fold", fold)
    engine = Engine(tiny_backbone)
    told = []
    thread = threading.Thread(target=lambda: told.append(engine.load("birds", slow)))
    thread.start()
    assert begun.wait(10)
    later = engine.load("birds", fast)
    go.set()
    thread.join()
    assert engine.tasks() == (later,)
    assert told == [later]
    assert [tier.entries for tier in engine.memory()] == [1, 1]


def test_a_pin_goes_over_to_the_next_generation(
    tiny_backbone: Backbone, tiny_adapter: Adapter
) -> None:
    engine = Engine(tiny_backbone)
    engine.load("birds", tiny_adapter)
    engine.pin("birds")
    engine.load("birds", Adapter.from_model(make_trained(tiny_backbone, seed=8), task="birds"))
    assert engine.memory()[0].pinned == 1
    assert not engine.evict("birds")
    engine.unpin("birds")
    assert engine.evict("birds")


def test_an_adapter_that_does_not_fit_is_refused(
    tiny_backbone: Backbone, tiny_adapter: Adapter
) -> None:
    tensors = {name: t for name, t in tiny_adapter.tensors.items() if name != "head.bias"}
    engine = Engine(tiny_backbone)
    with pytest.raises(SiteError, match=r"'birds' has 'head\.bias' of shape none"):
        engine.load("birds", replace(tiny_adapter, tensors=tensors))
    assert engine.tasks() == ()
