"""What the engine serves: a task at one moment, what it answered, and how it is kept."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.layout_plan import TaskPlan
from gatehub.problem import ONE_LABEL, Problem
from gatehub.runtime.execution.execution import Execution
from gatehub.runtime.tasks.packed import PackedTask
from gatehub.runtime.tasks.sources import Source


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
        dtype: in which it is computed, such as "float32".
        problem: whether an image has one of the labels, or any number of them, and from which
            scores on.
    """

    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    digest: str
    generation: int
    backbone: str
    dtype: str
    problem: Problem = ONE_LABEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a task answered, and exactly which one it was.

    Args:
        logits: (B, classes) float32.
        task: the task that computed them, as it was then.
    """

    logits: Tensor
    task: TaskInfo


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """One generation of a task: immutable, and replaced as a whole.

    Args:
        info: what users see of it.
        source: where its gates can be read again, or None.
        file_digest: SHA-256 of the file that they were read from, or None.
        kept: the gates themselves, where they cannot, or None.
        execution: what runs it.
        plan: what it has of its own on the backbone.
        stem: what its first layers are known by; equal ones can share a pass over them.
        packed_bytes: of its gates in memory.
    """

    info: TaskInfo
    source: Source | None
    file_digest: str | None
    kept: PackedTask | None
    execution: Execution
    plan: TaskPlan
    stem: Hashable
    packed_bytes: int
