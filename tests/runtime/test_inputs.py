"""What is no batch of images is refused in a sentence, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses import FakeTensorMode

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import EngineError, InputError, TaskNotFoundError, UnsafeNameError
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.engine import Engine
from gatehub.runtime.inputs import check_image, check_images

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def tiny_engine(tiny_backbone: Backbone, tiny_adapter: Adapter) -> Engine:
    engine = Engine(tiny_backbone)
    engine.load("a", tiny_adapter)
    return engine


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), r"got numpy\.ndarray; expected a dense float32"),
        ([[1.0]], r"got builtins\.list"),
        (None, r"got builtins\.NoneType"),
        (Path("robin.jpg"), r"got pathlib\."),
        (Image.new("RGB", (8, 8)), r"got PIL\.Image"),
        (torch.zeros(1, 3, 8, 8, device="meta"), r"without values \(meta\)"),
        (torch.zeros(1, 3, 8, 8).to_sparse(), "laid out as torch.sparse_coo"),
        (torch.zeros(1).expand(1, 3, 300_000, 300_000), "at most 33,554,432 an image are taken"),
        (torch.zeros(1).expand(2, 3, 4000, 4000), "at most 33,554,432 an image are taken"),
        (torch.zeros(1).expand(2000, 3, 224, 224), "and 268,435,456 at once"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "got images of torch.uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.complex64), "got images of torch.complex64"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\); expected \(B, 3, H, W\), none of them 0"),
        (torch.zeros(1, 4, 8, 8), r"shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), r"shape \(1, 3, 0, 8\)"),
        (torch.zeros(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
    ],
)
def test_what_is_no_batch_of_images(images: object, text: str) -> None:
    with pytest.raises(InputError, match=f"Task 'birds' got|{text}") as caught:
        check_images(images, channels=3, subject="Task 'birds'")
    assert caught.match(text)


@given(
    st.integers(0, 3),
    st.integers(0, 3 * 5 * 4 - 1),
    st.sampled_from([NAN, INF, -INF]),
    st.booleans(),
)
def test_one_value_that_is_not_finite_is_found(
    image: int, place: int, value: float, channels_last: bool
) -> None:
    images = torch.randn(4, 3, 5, 4)
    images[image].view(-1)[place] = value
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with pytest.raises(InputError, match=f"NaN or infinity in image {image} of 4"):
        check_images(images, channels=3, subject="Task 'birds'")
    with pytest.raises(InputError, match="NaN or infinity in image 0 of 1"):
        check_image(images[image], channels=3, subject="Task 'birds'")


@pytest.mark.parametrize(
    ("value", "ordinary"), [(-7.5, True), (0.0, True), (-3e38, False), (3e38, False), (2e4, False)]
)
def test_values_that_no_normalised_image_has_are_told(value: float, ordinary: bool) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 0] = value
    assert check_images(images, channels=3, subject="x") is ordinary


class _Unhashable(list[str]):
    """Nothing that names a task."""


@pytest.mark.parametrize("name", [None, 5, b"a", ["a"], {"a": 1}, _Unhashable()])
def test_what_is_no_name_is_refused(tiny_engine: Engine, name: Any) -> None:
    images = torch.zeros(1, 3, 32, 32)
    with Batcher(tiny_engine) as batcher:
        for ask in (
            lambda: tiny_engine.predict(name, images),
            lambda: tiny_engine.task(name),
            lambda: tiny_engine.loaded(name),
            lambda: tiny_engine.unload(name),
            lambda: tiny_engine.pin(name),
            lambda: tiny_engine.evict(name),
            lambda: tiny_engine.prefetch(name),
            lambda: batcher.submit(name, images[0]),
        ):
            with pytest.raises(TaskNotFoundError, match=f"No task <{type(name).__name__}> is"):
                ask()
    for ask in (
        lambda: tiny_engine.predict_mixed([name], images),
        lambda: tiny_engine.predict_all(images, [name]),
    ):
        with pytest.raises(InputError, match=r"as tasks\[0\]; expected str"):
            ask()
    for ask in (lambda: tiny_engine.register(name, "x"), lambda: tiny_engine.load(name, "x")):
        with pytest.raises(UnsafeNameError, match="is not a valid task name"):
            ask()


@pytest.mark.parametrize("names", [None, 5, "a", iter(["a"]), {"a"}])
def test_what_names_no_tasks_is_refused(tiny_engine: Engine, names: Any) -> None:
    images = torch.zeros(1, 3, 32, 32)
    for ask in (
        lambda: tiny_engine.predict_mixed(names, images),
        lambda: tiny_engine.predict_all(images, names),
    ):
        with pytest.raises(InputError, match=r"as tasks; expected Sequence\[str\]"):
            ask()


@pytest.mark.parametrize("source", [None, 5, b"a", {"a": 1}, torch.nn.Identity()])
def test_what_is_no_adapter_is_refused(tiny_engine: Engine, source: Any) -> None:
    for ask in (tiny_engine.load, tiny_engine.register):
        with pytest.raises(EngineError, match=r"as adapter; expected .*Path"):
            ask("b", source)


@pytest.mark.parametrize(
    "limit",
    [
        {"folded_bytes": "1"},
        {"folded_bytes": -1},
        {"gates_bytes": 1.5},
        {"gates_bytes": True},
        {"wait_s": None},
        {"wait_s": -1},
        {"wait_s": float("nan")},
        {"wait_s": "1"},
        {"wait_s": float("inf")},
    ],
)
def test_a_limit_that_is_none_is_refused(tiny_backbone: Backbone, limit: Any) -> None:
    (name,) = limit
    with pytest.raises(EngineError, match=rf"({name} is|as {name};).* expected"):
        Engine(tiny_backbone, **limit)


def test_a_tensor_without_values_is_refused(tiny_engine: Engine) -> None:
    gone = torch.zeros(1, 3, 32, 32)
    gone.untyped_storage().resize_(0)
    with FakeTensorMode():
        fake = torch.zeros(1, 3, 32, 32)
    for images in (gone, fake):
        with pytest.raises(InputError, match="without values that can be read"):
            tiny_engine.predict("a", images)
    with pytest.raises(InputError, match="without values that can be read"):
        torch.vmap(lambda image: tiny_engine.predict("a", image[None]))(torch.zeros(2, 3, 32, 32))
