"""An engine of one matrix per task, for what is about HTTP and not about convolutions."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch

from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import TaskNotFoundError
from gatehub.problem import Problem
from gatehub.runtime.engine import Answer, TaskInfo
from gatehub.runtime.tasks.entries import TierReport


def preprocessing(side: int = 16, rules: ImageRules | None = None) -> Preprocessing:
    return Preprocessing(
        input_size=(3, side, side),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        crop_pct=1.0,
        crop_mode="squash",
        image_rules=rules,
    )


class LinearEngine:
    """Answers like gatehub.Engine; `hold` keeps every run waiting until `release`."""

    def __init__(self, **labels: list[str]) -> None:
        self.backbone = SimpleNamespace(
            identity=SimpleNamespace(name="linear"), preprocessing=preprocessing()
        )
        self.entered = threading.Semaphore(0)
        self.runs = 0
        self._gate = threading.Event()
        self._gate.set()
        self._loaded: dict[str, tuple[TaskInfo, torch.Tensor]] = {}
        self._registered: dict[str, Callable[[], object]] = {}
        self._generation = 0
        for seed, (task, names) in enumerate(labels.items()):
            self.load(task, names, seed=seed)

    def load(
        self,
        task: str,
        labels: list[str],
        *,
        seed: int,
        side: int = 16,
        rules: ImageRules | None = None,
    ) -> TaskInfo:
        self._generation += 1
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(3 * side * side, len(labels), generator=generator) / side
        info = TaskInfo(
            task=task,
            labels=tuple(labels),
            preprocessing=preprocessing(side, rules),
            digest=hashlib.sha256(weight.numpy().tobytes()).hexdigest(),
            generation=self._generation,
            backbone="linear",
            dtype="float32",
        )
        self._loaded[task] = (info, weight)
        self._registered.pop(task, None)
        return info

    def register(self, task: str, load: Callable[[], object]) -> None:
        """Have `load` load it, or raise, when it is asked for the next time."""
        self._registered[task] = load

    def prepare(self, task: str, preprocessing: Preprocessing) -> None:
        info, weight = self._loaded[task]
        self._loaded[task] = replace(info, preprocessing=preprocessing), weight

    def decide(self, task: str, problem: Problem) -> None:
        info, weight = self._loaded[task]
        self._loaded[task] = replace(info, problem=problem), weight

    def unload(self, task: str) -> None:
        del self._loaded[task]

    def hold(self) -> None:
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(info for info, _ in self._loaded.values())

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._loaded, *self._registered}))

    def task(self, name: str) -> TaskInfo:
        if name in self._registered:
            self._registered[name]()
        return self._find(name)[0]

    def loaded(self, name: str) -> TaskInfo | None:
        return None if name in self._registered else self._find(name)[0]

    def memory(self) -> tuple[TierReport, ...]:
        return ()

    def stem(self, name: str) -> str:
        return self._find(name)[0].task

    def run(self, name: str, images: torch.Tensor) -> Answer:
        info, weight = self._find(name)
        self.runs += 1
        self.entered.release()
        assert self._gate.wait(30)
        if images.shape[1:] != info.preprocessing.input_size:
            # Only a swap between transform and run can bring this about.
            images = torch.zeros(len(images), *info.preprocessing.input_size)
        # One by one: in a batch, sums are rounded otherwise.
        return Answer(logits=torch.stack([row.flatten() @ weight for row in images]), task=info)

    def predict(self, name: str, images: torch.Tensor) -> torch.Tensor:
        return self.run(name, images).logits

    def _find(self, name: str) -> tuple[TaskInfo, torch.Tensor]:
        if name not in self._loaded:
            raise TaskNotFoundError(
                f"No task '{name}' is loaded; loaded are {', '.join(self._loaded)}."
            )
        return self._loaded[name]
