"""A mixed batch is put in the order of its tasks by one copy, however many parts it runs in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import MemoryBudgetError
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.execution.shared_pass import SharedPasses
from gatehub.runtime.tasks.tiers import Tiers
from tests.tiny import SIDE, make_trained, random_images

# Which of four tasks each image is for.
ASKED = [2, 0, 3, 1, 0, 2, 2, 3]


class CopiedImages(TorchDispatchMode):
    """Counts the images that operations write into memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        operation: object,
        types: object,
        arguments: tuple[object, ...] = (),
        choices: Mapping[str, object] | None = None,
    ) -> object:
        made = operation(*arguments, **(choices or {}))  # type: ignore[operator]
        given = {place(value) for value in find_images(arguments)}
        self.count += sum(len(value) for value in find_images(made) if place(value) not in given)
        return made


def find_images(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.shape[1:] == (3, SIDE, SIDE) else []
    nested = value if isinstance(value, list | tuple) else ()
    return [images for item in nested for images in find_images(item)]


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("room", [4, 3, 2, 1])
@pytest.mark.parametrize("gates", ["scale", "full"])
def test_a_batch_is_copied_once_however_few_tasks_there_is_room_for(
    gates: str, room: int, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tiny_backbone, dtype="float32")
    for seed in range(4):
        trained = make_trained(tiny_backbone, seed=seed, gates=gates)
        engine.load(f"t{seed}", Adapter.from_model(trained, task=f"t{seed}"))
    images, tasks = random_images(len(ASKED)), [f"t{number}" for number in ASKED]
    engine.predict_mixed(tasks, images)  # whatever is made of the network is made now
    parts: list[Tensor] = []

    @contextmanager
    def hold(self: Tiers, some: Sequence[object], *shared: object) -> Iterator[Sequence[object]]:
        if len(some) > room:
            raise MemoryBudgetError("There is no room for so many.")
        yield some

    def answer(tasks: Sequence[tuple[object, int]], given: Tensor) -> list[Tensor]:
        parts.append(given)
        return [torch.zeros(count, 3) for _, count in tasks]

    monkeypatch.setattr(Tiers, "folded", hold)
    monkeypatch.setattr(Tiers, "channels", hold)
    monkeypatch.setattr(Execution, "run_rows", lambda self, *given: answer(*given))
    monkeypatch.setattr(SharedPasses, "run", lambda self, shared, *given: answer(*given))
    with CopiedImages() as copied:
        engine.predict_mixed(tasks, images)

    assert copied.count == len(images)
    assert len(parts) == {4: 1, 3: 2, 2: 2, 1: 4}[room]
    order = [row for task in (2, 0, 3, 1) for row, asked in enumerate(ASKED) if asked == task]
    assert torch.equal(torch.cat(parts), images[order])


def test_copies_are_counted() -> None:
    images = random_images(3)
    with CopiedImages() as copied:
        torch.cat([images[:2], images[1:]])
        images[[2, 0]]
    assert copied.count == 6
