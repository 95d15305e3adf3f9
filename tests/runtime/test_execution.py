"""Whatever runs together answers as the folded models do, each by itself."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.gates.fold import fold
from gatehub.runtime.engine import Engine
from tests.parity import Tolerance, assert_parity
from tests.runtime.networks import NETWORKS, SIDE, make_task
from tests.tiny import random_images

# Merged norms and factors around a kernel round once more each.
ROUNDED = Tolerance(name="float32, merged", relative=2e-5)
BFLOAT16 = Tolerance(name="bfloat16", relative=0.03)

# Of each, two tasks with different numbers of labels.
CHOICES: list[dict[str, object]] = [
    {"gates": "scale"},
    {"gates": "scale", "start": "body"},
    {"gates": "scale", "start": "body", "norm": "stats"},
    {"gates": "scale", "start": "body", "norm": "frozen"},
    {"gates": "full", "start": "body"},
    {"gates": "auto", "norm": "stats"},
]


def make_tasks(backbone: Backbone) -> list[Adapter]:
    return [
        make_task(backbone, f"{index}-{len(labels)}", seed=10 * index, labels=labels, **choice)
        for index, choice in enumerate(CHOICES)
        for labels in (("crow", "jay", "rook"), ("a", "b", "c", "d", "e", "f"))
    ]


def make_engine(backbone: Backbone, tasks: Sequence[Adapter], *, dtype: str = "float32") -> Engine:
    engine = Engine(backbone, dtype=dtype)
    for task in tasks:
        engine.load(task.task, task)
    return engine


@functools.cache
def folded(backbone: Backbone, task: Adapter) -> nn.Module:
    return fold(backbone, task)


def run_alone(backbone: Backbone, task: Adapter, images: Tensor) -> Tensor:
    like = next(backbone.model.parameters())
    given = torch.empty(images.shape, dtype=like.dtype).copy_(images)
    with torch.no_grad():
        answer: Tensor = folded(backbone, task)(given).float()
    return answer


def check_together(
    engine: Engine,
    backbone: Backbone,
    tasks: Sequence[Adapter],
    side: int,
    tolerance: Tolerance = ROUNDED,
) -> None:
    """Each task for one image and for several, in a mixed order, and all for the same images."""
    for count in (1, 3):
        names = [task.task for task in tasks for _ in range(count)]
        random.Random(count).shuffle(names)
        images = random_images(len(names), side, seed=count)
        images = images.contiguous(memory_format=torch.channels_last)
        given = images.clone()
        mixed = engine.predict_mixed(names, images)
        every = engine.predict_all(images[:3], [task.task for task in tasks])
        assert torch.equal(images, given)
        for task in tasks:
            rows = [row for row, name in enumerate(names) if name == task.task]
            expected = run_alone(backbone, task, given[rows])
            assert_parity(engine.predict(task.task, images[rows]), expected, tolerance)
            assert_parity(torch.stack([mixed[row] for row in rows]), expected, tolerance)
            expected = run_alone(backbone, task, given[:3])
            assert_parity(every[task.task], expected, tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_habit_of_a_network_survives(name: str) -> None:
    backbone = NETWORKS[name]()
    tasks = make_tasks(backbone)
    engine = make_engine(backbone, tasks)
    check_together(engine, backbone, tasks, SIDE)
    check_together(engine, backbone, tasks[:4], SIDE + 3)
    for pair in zip(tasks[::2], tasks[1::2], strict=True):
        check_together(engine, backbone, pair, SIDE)
