"""What tasks have of their own on a backbone with merged norms: by their layout, and their head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gatehub.backbone import Backbone
from gatehub.errors import SiteError
from gatehub.gates.fold import find_kernel
from gatehub.gates.layout import GateLayout, find_own_values
from gatehub.gates.norm_folding import NormMerge
from gatehub.gates.norms import find_gains

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayoutPlan:
    """What differs from task to task of one layout, and what does not.

    Args:
        layout: gates and normalisation.
        gains: from `find_gains`.
        norms: names of the task's normalisation values and shifts in the plain model.
        own: names of the merged model's tensors that differ from task to task, but for the head.
        taken: names of a task's tensors, but for the head.
    """

    layout: GateLayout
    gains: Mapping[str, str]
    norms: frozenset[str]
    own: frozenset[str]
    taken: frozenset[str]

    @property
    def is_scale(self) -> bool:
        """Whether all gates are of kind `scale`, so that tasks can share their kernels."""
        return all(gate.kind.name == "scale" for gate in self.layout.sites.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeadPlan:
    """A classifier with one number of labels.

    Args:
        labels: its number of classes.
        shapes: of its tensors, by their name in the model.
    """

    labels: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def numel(self) -> int:
        """How many values it has."""
        return sum(map(math.prod, self.shapes.values()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskPlan:
    """What one task has of its own on the backbone that it was trained on.

    Args:
        body: what tasks of its layout have, but for the head.
        head: its classifier.
        places: where the head's tensors belong: name in the adapter → name in the model.
    """

    body: LayoutPlan
    head: HeadPlan
    places: Mapping[str, str]

    @property
    def own(self) -> frozenset[str]:
        """Names of the merged model's tensors that are the task's own, head included."""
        return self.body.own.union(self.head.shapes)


def plan_layout(
    backbone: Backbone,
    kernels: Mapping[str, Tensor],
    merges: Mapping[str, NormMerge],
    layout: GateLayout,
) -> LayoutPlan:
    """Find what tasks of a layout have of their own.

    Args:
        backbone: the one that they were trained on.
        kernels: the tensors of its plain form, by name.
        merges: the norms that are merged, by the convolution that takes them in.
        layout: gates and normalisation.

    Raises:
        SiteError: a gate has no place in the backbone.
    """
    for site, gate in layout.sites.items():
        find_kernel(kernels, site, gate, subject="A task")
    model, exclude = backbone.model, backbone.heads
    values = find_own_values(model, layout, exclude=exclude)
    norms = frozenset(name for name in values if name in kernels)
    own = {f"{site}.weight" for site in layout.sites}
    consumed: set[str] = set()
    for merge in merges.values():
        parts = {f"{merge.norm}.{part}" for part in _NORM_PARTS}
        consumed |= parts
        if parts & norms:
            own |= {f"{merge.convolution}.weight", f"{merge.convolution}.bias"}
    return LayoutPlan(
        layout=layout,
        gains=find_gains(model, norm=layout.norm, sites=layout.sites),
        norms=norms,
        own=frozenset(own | (norms - consumed)),
        taken=frozenset((*values, *layout.gate_shapes())),
    )


def check_tensors(
    backbone: Backbone,
    kernels: Mapping[str, Tensor],
    plan: TaskPlan,
    *,
    task: str,
    given: Mapping[str, Tensor],
) -> None:
    """Check a task's tensors against those that its plan has on a backbone.

    Args:
        backbone: the one that it was trained on.
        kernels: the tensors of its plain form, by name.
        plan: of the task.
        task: its name, for the error.
        given: its tensors.

    Raises:
        SiteError: one is missing, has no place there, or has another shape.
    """
    body, head = plan.body, plan.head
    expected = body.layout.gate_shapes()
    expected |= {name: tuple(kernels[name].shape) for name in body.norms}
    gains = body.gains.values()
    expected |= {name: tuple(backbone.model.get_parameter(name).shape) for name in gains}
    expected |= {name: head.shapes[place] for name, place in plan.places.items()}
    for name in expected.keys() | given.keys():
        got = tuple(given[name].shape) if name in given else None
        if got != expected.get(name):
            raise SiteError(
                f"Task '{task}' has '{name}' of shape {got or 'none'}, where this backbone with "
                f"norm '{body.layout.norm}' takes {expected.get(name) or 'no such tensor'}.",
                hint="Train the adapter on this backbone.",
            )
