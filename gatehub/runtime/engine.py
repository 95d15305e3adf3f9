"""The engine: one resident backbone, many tasks, each published as one immutable reference."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.adapter.names import check_task_name
from gatehub.backbone import Backbone
from gatehub.errors import InputError, TaskNotFoundError
from gatehub.gates.fold import fold
from gatehub.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """A task as it is served.

    Args:
        task: the name it is served under.
        labels: class names, in the order of the logits.
        preprocessing: how an image becomes its input.
        digest: SHA-256 of the adapter's tensors.
        generation: counts the loads of this engine; a replaced task has a new one.
        backbone: name of the backbone.
    """

    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    digest: str
    generation: int
    backbone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a task answered, and exactly which one it was.

    Args:
        logits: (B, classes) float32.
        task: the task that computed them, as it was then.
    """

    logits: Tensor
    task: TaskInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class _Resident:
    info: TaskInfo
    model: nn.Module
    device: torch.device


class Engine:
    """Serves any number of tasks on one backbone, from any number of threads.

    A task is folded off to the side and then published by replacing one reference, so a request
    sees a task whole or not at all, and keeps the one it began with. Inference takes no lock.

    Args:
        backbone: the one that all adapters were trained on. It is shared, never changed.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._writing = threading.Lock()
        self._residents: Mapping[str, _Resident] = MappingProxyType({})
        self._generation = 0

    def load(self, task: str, adapter: Adapter | str | Path) -> TaskInfo:
        """Serve an adapter under a name; a task of that name is replaced.

        Whatever fails, what was served before is still served.

        Args:
            task: the name: letters, digits, ".", "_" and "-", at most 96.
            adapter: an adapter, its folder, or as a string its name on a hub; see `Adapter.load`.

        Raises:
            UnsafeNameError: the name has other characters.
            AdapterFormatError: the folder is not a sound adapter.
            BackboneMismatchError: it was trained on another backbone.
            SiteError: it does not fit the backbone.
        """
        check_task_name(task)
        loaded = adapter if isinstance(adapter, Adapter) else Adapter.load(adapter)
        model = fold(self.backbone, loaded)
        digest = loaded.digest
        with self._writing:
            self._generation += 1
            info = TaskInfo(
                task=task,
                labels=loaded.labels,
                preprocessing=loaded.preprocessing,
                digest=digest,
                generation=self._generation,
                backbone=self.backbone.identity.name,
            )
            resident = _Resident(info=info, model=model, device=next(model.parameters()).device)
            self._residents = MappingProxyType({**self._residents, task: resident})
        return info

    def unload(self, task: str) -> None:
        """Stop serving a task; requests that have begun are finished.

        Raises:
            TaskNotFoundError: no task of that name is served.
        """
        with self._writing:
            self._find(task)
            left = {name: r for name, r in self._residents.items() if name != task}
            self._residents = MappingProxyType(left)

    def tasks(self) -> tuple[TaskInfo, ...]:
        """Return the tasks that are served, by name."""
        residents = self._residents
        return tuple(residents[name].info for name in sorted(residents))

    def task(self, task: str) -> TaskInfo:
        """Return one task.

        Raises:
            TaskNotFoundError: no task of that name is served.
        """
        return self._find(task).info

    def predict(self, task: str, images: Tensor) -> Tensor:
        """Return a task's logits; see `run`."""
        return self.run(task, images).logits

    def run(self, task: str, images: Tensor) -> Answer:
        """Answer for a task, and say which generation of it answered.

        Args:
            task: name of the task.
            images: (B, 3, H, W) float32, normalised as the task's preprocessing says, B ≥ 1.

        Returns:
            Logits (B, classes) float32, on the CPU.

        Raises:
            TaskNotFoundError: no task of that name is served.
            InputError: images of another shape or dtype.
        """
        resident = self._find(task)
        channels = resident.info.preprocessing.input_size[0]
        if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
            raise InputError(
                f"Task '{task}' got images of shape {tuple(images.shape)}; "
                f"expected (B, {channels}, H, W), none of them 0."
            )
        if images.dtype != torch.float32:
            raise InputError(f"Task '{task}' got images of {images.dtype}; expected float32.")
        with torch.inference_mode():
            logits = resident.model(images.to(resident.device))
        return Answer(logits=logits.float().cpu(), task=resident.info)

    def _find(self, task: str) -> _Resident:
        residents = self._residents
        if task not in residents:
            served = ", ".join(sorted(residents)) or "none"
            raise TaskNotFoundError(
                f"No task '{task[:100]}' is served.", hint=f"Served here: {served}."
            )
        return residents[task]
