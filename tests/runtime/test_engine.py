"""Many tasks on one backbone: each answer is exactly that of its own folded model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import (
    BackboneMismatchError,
    InputError,
    MissingFileError,
    TaskNotFoundError,
    UnsafeNameError,
)
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.parity import assert_parity
from tests.tiny import make_backbone, make_trained, random_images


@pytest.fixture
def adapters(tiny_backbone: Backbone) -> list[Adapter]:
    return [
        Adapter.from_model(make_trained(tiny_backbone, seed=seed), task=f"task{seed}")
        for seed in range(4)
    ]


def test_answers_are_those_of_the_folded_models(
    tiny_backbone: Backbone, adapters: list[Adapter]
) -> None:
    engine = Engine(tiny_backbone)
    for adapter in adapters:
        engine.load(adapter.task, adapter)
    images = random_images(3)
    for adapter in adapters:
        with torch.no_grad():
            expected = fold(tiny_backbone, adapter)(images)
        assert_parity(engine.predict(adapter.task, images), expected)
    assert [info.task for info in engine.tasks()] == ["task0", "task1", "task2", "task3"]


def test_an_answer_names_the_task_that_gave_it(
    tiny_backbone: Backbone, adapters: list[Adapter], adapter_folder: Path
) -> None:
    engine = Engine(tiny_backbone)
    first = engine.load("birds", adapters[0])
    answer = engine.run("birds", random_images())
    assert answer.task == first
    assert first.digest == adapters[0].digest
    second = engine.load("birds", adapter_folder)
    assert second.generation > first.generation
    assert engine.task("birds") == second != first
    assert engine.run("birds", random_images()).task == second


def test_a_failed_load_leaves_what_was_there(
    tiny_backbone: Backbone, adapters: list[Adapter], tmp_path: Path
) -> None:
    engine = Engine(tiny_backbone)
    before = engine.load("birds", adapters[0])
    logits = engine.predict("birds", random_images())
    stranger = make_backbone(seed=9)
    foreign = Adapter.from_model(make_trained(stranger), task="birds")
    with pytest.raises(BackboneMismatchError, match="digest"):
        engine.load("birds", foreign)
    huge = replace(adapters[0].preprocessing, input_size=(3, 4096, 4096))
    slow = replace(adapters[0], config=replace(adapters[0].config, preprocessing=huge))
    with pytest.raises(BackboneMismatchError, match="takes images of 4096 x 4096 pixels"):
        engine.load("birds", slow)
    with pytest.raises(MissingFileError):
        engine.load("birds", tmp_path / "nowhere")
    with pytest.raises(UnsafeNameError):
        engine.load("a/b", adapters[0])
    assert engine.tasks() == (before,)
    assert torch.equal(engine.predict("birds", random_images()), logits)


def test_unload(tiny_backbone: Backbone, adapters: list[Adapter]) -> None:
    engine = Engine(tiny_backbone)
    engine.load("a", adapters[0])
    engine.load("b", adapters[1])
    engine.unload("a")
    with pytest.raises(TaskNotFoundError, match=r"No task 'a' is served\. Served here: b\."):
        engine.predict("a", random_images())
    with pytest.raises(TaskNotFoundError):
        engine.unload("a")


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.zeros(3, 32, 32), r"shape \(3, 32, 32\); expected \(B, 3, H, W\)"),
        (torch.zeros(1, 1, 32, 32), "expected"),
        (torch.zeros(0, 3, 32, 32), "none of them 0"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.float64), "float64; expected float32"),
    ],
)
def test_wrong_images_are_refused(
    tiny_backbone: Backbone, tiny_adapter: Adapter, images: torch.Tensor, text: str
) -> None:
    engine = Engine(tiny_backbone)
    engine.load("birds", tiny_adapter)
    with pytest.raises(InputError, match=text):
        engine.predict("birds", images)


def test_serving_changes_no_weight(tiny_backbone: Backbone, adapters: list[Adapter]) -> None:
    before = {name: t.clone() for name, t in tiny_backbone.model.state_dict().items()}
    engine = Engine(tiny_backbone)
    for adapter in adapters:
        engine.load(adapter.task, adapter)
        engine.predict(adapter.task, random_images())
    after = tiny_backbone.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_answers_stay_right_while_tasks_are_replaced(
    tiny_backbone: Backbone, adapters: list[Adapter]
) -> None:
    images = random_images(1)
    alone = Engine(tiny_backbone)
    known = {}
    for adapter in adapters:
        alone.load("birds", adapter)
        known[adapter.digest] = alone.predict("birds", images)
    engine = Engine(tiny_backbone)
    engine.load("birds", adapters[0])
    wrong: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = engine.run("birds", images)
            if not torch.equal(answer.logits, known[answer.task.digest]):
                wrong.append(answer.task.digest)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    generations = [engine.load("birds", adapters[i % 4]).generation for i in range(40)]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert generations == sorted(set(generations))


@pytest.mark.parametrize("during", ["load", "predict", "first size"])
@pytest.mark.parametrize(
    "setting",
    [
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.device("meta"),
        torch.inference_mode,
        lambda: default_dtype(torch.float64),
    ],
)
def test_the_hosts_settings_change_no_answer(
    tiny_backbone: Backbone,
    tiny_adapter: Adapter,
    during: str,
    setting: Callable[[], AbstractContextManager[object]],
) -> None:
    sized = random_images(2)[..., :28, :30].contiguous()
    alone = Engine(tiny_backbone, dtype="float32")
    alone.load("birds", tiny_adapter)
    expected = alone.predict("birds", random_images(2)), alone.predict("birds", sized)
    engine = Engine(tiny_backbone, dtype="float32")
    given = random_images(2)
    with setting() if during == "load" else nullcontext():
        engine.load("birds", tiny_adapter)
    with setting() if during == "predict" else nullcontext():
        found = engine.predict("birds", given)
    with setting() if during == "first size" else nullcontext():
        other = engine.predict("birds", sized)
    assert torch.equal(found, expected[0])
    assert torch.equal(other, expected[1])
    assert found.requires_grad is False
    assert not found.is_inference()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
