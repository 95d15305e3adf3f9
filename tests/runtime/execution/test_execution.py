"""Whatever runs together answers as the folded models do, each by itself."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.compiler.kernels import Kernel, can_pack
from gatehub.compiler.recording import Recording, record
from gatehub.errors import InputError
from gatehub.gates.fold import fold
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.execution import Execution, FoldedTask
from gatehub.runtime.execution.programs import OTHER_SIZES, Size
from tests.compiler.networks import NETWORKS, SIDE, Vector, Wired, Wiring, in_a_row, make_task, wire
from tests.parity import Tolerance, assert_parity
from tests.tiny import random_images

# Merged norms and factors around a kernel round once more each.
ROUNDED = Tolerance(name="float32, merged", relative=2e-5)
BFLOAT16 = Tolerance(name="bfloat16", relative=0.06)

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


def fold_tasks(backbone: Backbone, *tasks: Adapter) -> list[FoldedTask]:
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    return [execution.fold(task, merged.plan_task(task)) for task in tasks]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_backbone_in_another_dtype_is_served_in_float32(dtype: torch.dtype) -> None:
    backbone = Backbone(wire(in_a_row).model.to(dtype))
    tasks = make_tasks(backbone)
    tolerance = BFLOAT16 if dtype is torch.bfloat16 else ROUNDED
    check_together(make_engine(backbone, tasks), backbone, tasks, SIDE, tolerance)


@pytest.mark.parametrize("backbone_dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["in_a_row", "runs_blocks", "standard", "grouped"])
def test_bfloat16_answers_within_its_rounding(name: str, backbone_dtype: torch.dtype) -> None:
    backbone = Backbone(NETWORKS[name]().model.to(backbone_dtype))
    tasks = make_tasks(backbone)[::4]
    engine = make_engine(backbone, tasks, dtype="bfloat16")
    check_together(engine, backbone, tasks, SIDE, BFLOAT16)


def test_images_may_come_in_any_order_of_memory() -> None:
    backbone = wire(in_a_row)
    task = make_task(backbone, "birds")
    engine = make_engine(backbone, [task])
    images = random_images(3, SIDE)
    expected = engine.predict("birds", images)
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    wider = torch.cat([images, images], 3)[..., :SIDE]
    for same in (images.contiguous(memory_format=torch.channels_last), turned, wider):
        assert torch.equal(engine.predict("birds", same), expected)
    with_gradient = images.clone().requires_grad_()
    assert torch.equal(engine.predict("birds", with_gradient), expected)


def test_weights_that_a_task_leaves_alone_are_the_same_tensors_for_all() -> None:
    backbone = wire(in_a_row)
    tasks = (make_task(backbone, "task", seed=s, gates="full", start="body") for s in (1, 2))
    one, other = fold_tasks(backbone, *tasks)
    assert one.own == {"body.weight", "body.bias", "fc.weight", "fc.bias"}
    shared = one.weights.keys() - one.own
    assert "stem.weight" in shared
    assert all(one.weights[name] is other.weights[name] for name in shared)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_bytes_are_known_before_anything_is_formed(
    choice: dict[str, object], dtype: torch.dtype
) -> None:
    backbone = NETWORKS["runs_blocks"]()
    task = make_task(backbone, "task", **choice)
    merged = MergedBackbone(backbone)
    execution, plan = Execution(merged, dtype), merged.plan_task(task)
    assert execution.count_bytes(plan) == execution.fold(task, plan).bytes
    shared = execution.shared.find(plan, (3, SIDE, SIDE))
    assert (shared is not None) == plan.body.is_scale
    if shared is not None:
        known = execution.shared.count_bytes(shared, plan)
        assert known == execution.shared.factors(shared, task, plan).bytes


def test_only_tasks_with_the_same_factors_share_a_pass() -> None:
    """All norms are merged here, so tasks with other norm values have the same weights."""
    backbone = wire(in_a_row)
    merged = MergedBackbone(backbone)
    execution = Execution(merged, torch.float32)
    keys = []
    for gates, norm in (("scale", "affine"), ("scale", "stats"), ("full", "affine")) * 2:
        plan = merged.plan_task(make_task(backbone, "task", gates=gates, norm=norm))
        keys.append(execution.stem_key(plan))
    assert keys[:3] == keys[3:]
    assert len(set(keys)) == 3
    other = Execution(merged, torch.float32).stem_key(plan)
    assert other not in keys


def test_a_large_kernel_is_packed_once_and_only_where_it_is_convolved_alike() -> None:
    backbone = NETWORKS["strides_and_groups_one_kernel"]()
    weights = fold_tasks(backbone, make_task(backbone, "task"))[0].weights
    assert isinstance(weights["wider.weight"], Tensor)
    backbone = NETWORKS["views_beside_a_packed_kernel"]()
    weights = fold_tasks(backbone, make_task(backbone, "task"))[0].weights
    assert isinstance(weights["wider.weight"], Kernel) == can_pack(torch.float32)


def test_a_network_that_views_its_values_in_the_usual_order_is_served_in_it() -> None:
    backbone = NETWORKS["changes_a_view_that_is_read_later"]()
    weights = fold_tasks(backbone, make_task(backbone, "task"))[0].weights
    assert weights["body.weight"].is_contiguous()
    assert not weights["body.weight"].is_contiguous(memory_format=torch.channels_last)


def test_many_sizes_in_rotation_are_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Size] = []

    def count(*arguments: object, **choices: object) -> Recording:
        recorded.append(choices["input_size"])
        return record(*arguments, **choices)

    monkeypatch.setattr("gatehub.runtime.execution.programs.record", count)
    backbone = wire(in_a_row)
    engine = make_engine(backbone, [make_task(backbone, "birds")])
    assert OTHER_SIZES >= 8
    sides = [SIDE, *range(20, 20 + OTHER_SIZES)]
    for side in sides * 2:
        engine.predict("birds", random_images(1, side))
    assert [size[1] for size in recorded] == sides
    engine.predict("birds", random_images(1, 20))
    engine.predict("birds", random_images(1, 90))  # the least used goes, never the backbone's own
    for side in (SIDE, 20, 20 + OTHER_SIZES - 1):
        engine.predict("birds", random_images(1, side))
    assert [size[1] for size in recorded] == [*sides, 90]
    engine.predict("birds", random_images(1, 21))
    assert [size[1] for size in recorded] == [*sides, 90, 21]


def test_sizes_that_do_not_fit_are_refused_by_name() -> None:
    backbone = wire(lambda net, x: in_a_row(net, F.max_pool2d(x, 4)))
    engine = make_engine(backbone, [make_task(backbone, "birds")])
    with pytest.raises(InputError, match=r"Images of 3 x 2 x 2 do not fit .*Send images of 3 x 12"):
        engine.predict("birds", random_images(1, 2))
    assert engine.predict("birds", random_images(1, SIDE)).shape == (1, 3)


def reads_a_kernel_on_large_images(net: Wired, x: Tensor) -> Tensor:
    y = net.end(net.body(net.begin(x)))
    return y if x.shape[2] == SIDE else y * net.body.weight.mean()


def reads_a_norm_on_large_images(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x))
    return net.end(net.norm2(y)) + (0 if x.shape[2] == SIDE else y.mean((2, 3))[:, :1])


@pytest.mark.parametrize("wiring", [reads_a_kernel_on_large_images, reads_a_norm_on_large_images])
def test_a_size_on_which_weights_are_used_otherwise_is_refused(wiring: Wiring) -> None:
    backbone = wire(wiring)
    engine = make_engine(backbone, [make_task(backbone, "birds")])
    with pytest.raises(InputError, match=r"uses its weights differently on images of 3 x 20"):
        engine.predict("birds", random_images(1, 20))


def scales_twice_on_large_images(net: Wired, x: Tensor) -> Tensor:
    y = net.body(net.begin(x))
    if x.shape[2] != SIDE:
        y = net.scale(y)
    return net.end(net.scale(y))


def test_factors_of_one_size_are_not_read_as_those_of_another() -> None:
    backbone = wire(scales_twice_on_large_images, scale=Vector(8, 1, 1))
    tasks = make_tasks(backbone)[:2]
    engine = make_engine(backbone, tasks)
    check_together(engine, backbone, tasks, SIDE)
    check_together(engine, backbone, tasks, 20)


def test_other_requests_go_on_while_a_size_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = wire(in_a_row)
    tasks = make_tasks(backbone)
    engine = make_engine(backbone, tasks)
    engine.predict(tasks[0].task, random_images(1, SIDE))
    recording, go_on = threading.Event(), threading.Event()

    def record_slowly(*arguments: object, **choices: object) -> Recording:
        recording.set()
        assert go_on.wait(30)
        return record(*arguments, **choices)

    monkeypatch.setattr("gatehub.runtime.execution.programs.record", record_slowly)
    slow = threading.Thread(target=engine.predict, args=(tasks[0].task, random_images(1, SIDE + 4)))
    slow.start()
    assert recording.wait(30)
    try:
        # Stems, shared passes and folds that nobody has asked for before, on images of its size.
        check_together(engine, backbone, tasks, SIDE)
        engine.load("another", make_task(backbone, "another", seed=99))
    finally:
        go_on.set()
        slow.join()
