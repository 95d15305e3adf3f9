"""The engine: one resident backbone, many tasks, each published as one immutable reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from gatehub._arguments import checked
from gatehub._text import quote
from gatehub.adapter import Adapter
from gatehub.adapter.names import check_task_name
from gatehub.backbone import Backbone
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import EngineError
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.dtypes import AUTO, choose_dtypes
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.execution.programs import size_of
from gatehub.runtime.inputs import check_images, check_limits, check_names
from gatehub.runtime.mixing import answer_all, answer_mixed
from gatehub.runtime.tasks.catalogue import Catalogue
from gatehub.runtime.tasks.current import Current
from gatehub.runtime.tasks.entries import TierReport
from gatehub.runtime.tasks.loading import Loader
from gatehub.runtime.tasks.reading import Reader
from gatehub.runtime.tasks.served import Answer, Served, TaskInfo
from gatehub.runtime.tasks.sources import open_source
from gatehub.runtime.tasks.tiers import Tiers

__all__ = ["Answer", "Engine", "TaskInfo"]


class Engine:
    """Serves any number of tasks on one backbone, from any number of threads.

    A task is folded off to the side, checked, and then published by replacing one reference, so a
    request sees a task whole or not at all, and keeps the one it began with. Inference takes no
    lock. What does not fit the budgets leaves memory, the least used first, and comes back when
    it is asked for.

    Args:
        backbone: the one that all adapters were trained on. It is shared, never changed.
        dtype: "float32", "bfloat16" or "float16"; "auto" takes bfloat16 where the processor has
            matrix units for it, for each task whose probe agrees, and float32 otherwise.
        folded_bytes: of tasks' folded weights at most; None for no limit. The backbone's kernels,
            in each order that image sizes want, lie outside of it.
        gates_bytes: of gates in memory at most; None for no limit. Adapters that were handed over
            as objects cannot leave memory.
        wait_s: how long a request waits for memory that others use, or for a load by another.

    Raises:
        EngineError: no such dtype, or a limit that is none.
    """

    @checked(EngineError)
    def __init__(
        self,
        backbone: Backbone,
        *,
        dtype: str = AUTO,
        folded_bytes: int | None = None,
        gates_bytes: int | None = None,
        wait_s: float = 30.0,
    ) -> None:
        check_limits(folded_bytes=folded_bytes, gates_bytes=gates_bytes, wait_s=wait_s)
        self.backbone = backbone
        self._check = partial(check_images, channels=backbone.preprocessing.input_size[0])
        device = next(backbone.model.parameters()).device
        with pin_settings():
            merged, reader = MergedBackbone(backbone), Reader(backbone)
            executions = [Execution(merged, found) for found in choose_dtypes(dtype, device)]
        self._catalogue = Catalogue()
        self._tiers = Tiers(
            folded_bytes=folded_bytes,
            gates_bytes=gates_bytes,
            wait_s=wait_s,
            read_again=reader.read_again,
            is_current=self._catalogue.is_current,
            executions=executions,
        )
        self._loader = Loader(merged, executions, reader, self._tiers, self._catalogue)
        self._current = Current(self._catalogue, self._loader, wait_s=wait_s)

    @checked(EngineError, but=("task",))
    def load(self, task: str, adapter: Adapter | str | Path) -> TaskInfo:
        """Serve an adapter under a name; a task of that name is replaced.

        Whatever fails, what was served before is still served. Of two loads under one name the
        one that began later stays; several of the same adapter at the same time are one.

        Args:
            task: the name: letters, digits, ".", "_" and "-", at most 96.
            adapter: an adapter, its folder, or as a string its name on a hub; see `Adapter.load`.

        Raises:
            UnsafeNameError: the name has other characters.
            AdapterFormatError: the folder is not a sound adapter.
            BackboneMismatchError: it was trained on another backbone.
            SelfCheckError: it does not answer its probe here as it did where it was made.
            ExecutionError: the backbone cannot be recorded, such as one that branches on values.
            SiteError: it does not fit the backbone.
            MemoryBudgetError: it does not fit the memory that tasks may take.
            HubError: it is on a hub that cannot give it.
        """
        check_task_name(task)
        return self._loader.load(task, open_source(adapter)).info

    @checked(EngineError, but=("task",))
    def register(self, task: str, adapter: str | Path) -> None:
        """Name where a task is, and load it from there when it is asked for the next time.

        A task of that name that is served answers no more: what answers next is what lies there.

        Args:
            task: as for `load`.
            adapter: a folder, or as a string its name on a hub.

        Raises:
            UnsafeNameError: the name has other characters.
        """
        check_task_name(task)
        self._loader.register(task, open_source(adapter))

    def unload(self, task: str) -> None:
        """Stop serving a task; requests and loads that have begun end without it coming back.

        Raises:
            TaskNotFoundError: no task of that name is served.
        """
        self._loader.unload(task)

    def tasks(self) -> tuple[TaskInfo, ...]:
        """Return the tasks that are served, by name; of a replaced one, what was served last."""
        served = self._catalogue.served
        return tuple(served[name].info for name in sorted(served))

    def names(self) -> tuple[str, ...]:
        """Return the names of all tasks, also of those that are only registered."""
        return self._catalogue.names

    def task(self, task: str) -> TaskInfo:
        """Return one task; one that is only registered is loaded.

        Raises:
            TaskNotFoundError: no task of that name is served.
        """
        return self._current.find(task).info

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
            MemoryBudgetError: it does not fit the memory that tasks may take.
            TaskUnavailableError: it had to leave memory, and cannot come back.
        """
        exact = not self._check(images, subject=f"Task {quote(task)}")

        def answer(found: Mapping[str, Served]) -> Answer:
            served = found[task]
            forms = served.execution.forms(len(images), size_of(images))
            with self._tiers.folded([served], [forms]) as (folded,):
                logits = served.execution.run(folded, images, exact=exact)
            return Answer(logits=logits, task=served.info)

        return self._current.answer([task], answer)

    def predict_mixed(self, tasks: Sequence[str], images: Tensor) -> list[Tensor]:
        """Return logits (classes,) for each image; see `run_mixed`."""
        return [answer.logits for answer in self.run_mixed(tasks, images)]

    def run_mixed(self, tasks: Sequence[str], images: Tensor) -> list[Answer]:
        """Answer for another task with each image, together.

        Layers that tasks leave ungated run once for all their images, and tasks whose gates are
        all of kind `scale` run in one pass altogether. The logits are those of `run`, but for
        rounding.

        Args:
            tasks: name of the task of each image.
            images: (B, 3, H, W) float32, normalised as their tasks say.

        Returns:
            For each image, in order, its logits (classes,) and its task.

        Raises:
            TaskNotFoundError: no task of a name is served.
            InputError: images of another shape or dtype, or another number of them.
        """
        exact = not self._check(images, subject="A mixed batch")
        check_names(tasks, where="Engine.run_mixed()", images=len(images))
        return self._current.answer(
            tasks, lambda found: answer_mixed([found[t] for t in tasks], images, self._tiers, exact)
        )

    def predict_all(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return logits (B, classes) of each task, by its name; see `run_all`."""
        return {task: answer.logits for task, answer in self.run_all(images, tasks).items()}

    def run_all(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer for many tasks with the same images; layers that they share run once.

        Args:
            images: (B, 3, H, W) float32, normalised as the tasks say.
            tasks: names of the tasks.

        Returns:
            By the task's name, logits (B, classes) float32, and its task.

        Raises:
            TaskNotFoundError: no task of a name is served.
            InputError: images of another shape or dtype.
        """
        exact = not self._check(images, subject="A batch for many tasks")
        check_names(tasks, where="Engine.run_all()")

        def answer(found: Mapping[str, Served]) -> dict[str, Answer]:
            answers = answer_all(list(found.values()), images, self._tiers, exact)
            return dict(zip(found, answers, strict=True))

        return self._current.answer(tasks, answer)

    def loaded(self, task: str) -> TaskInfo | None:
        """Return a task that can answer at once, None for one that is to be loaded first.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        served = self._catalogue.find(task)
        return None if served is None else served.info

    def stem(self, task: str) -> object:
        """Return what a task's first layers are known by: equal ones can share a pass over them.

        It loads nothing; a task that is only registered has a stem of its own.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        served = self._catalogue.find(task)
        return task if served is None else served.stem

    def pin(self, task: str) -> None:
        """Fold a task now, and keep it and what replaces it so until it is unpinned or unloaded.

        It answers images of every size in that memory, more slowly where its kernels find no room.
        """
        pinned = False
        while not pinned:
            served = self._current.find(task)
            with self._tiers.folded([served], [served.execution.forms()]):
                self._tiers.pin(served)
                # A generation that was replaced before then had no pin to hand over.
                pinned = self._catalogue.is_current(served)

    def unpin(self, task: str) -> None:
        """Let a task leave memory again when room is needed.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        if (served := self._catalogue.present(task)) is not None:
            self._tiers.unpin(served)

    def evict(self, task: str) -> bool:
        """Let a task's folded weights go now, and say whether they went.

        What is pinned, in use or not there stays as it is; the next request folds the task again.

        Raises:
            TaskNotFoundError: no task of that name is known.
        """
        served = self._catalogue.present(task)
        return served is not None and self._tiers.evict(served)

    def prefetch(self, *tasks: str) -> None:
        """Fold tasks now, so that their next requests need not wait for it."""
        for task in tasks:
            served = self._current.find(task)
            with self._tiers.folded([served], [served.execution.forms()]):
                pass

    def memory(self) -> tuple[TierReport, ...]:
        """Say what is in memory: folded weights, factors of one-pass tasks, and gates."""
        return self._tiers.reports()
