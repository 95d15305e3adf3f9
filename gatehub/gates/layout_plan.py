"""What tasks of one layout have of their own on a backbone with merged norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gatehub.backbone import Backbone
from gatehub.errors import SiteError
from gatehub.gates.fold import find_kernel
from gatehub.gates.heads import name_head
from gatehub.gates.layout import GateLayout
from gatehub.gates.norm_folding import NormMerge
from gatehub.gates.norms import find_gains, find_norm_tensors

# A classifier's tensors: name in the model → shape.
Heads = Mapping[str, tuple[int, ...]]

_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayoutPlan:
    """What differs from task to task of one layout, and what does not.

    Args:
        layout: gates and normalisation.
        gains: from `find_gains`.
        norms: names of the task's normalisation values in the plain model.
        own: names of the merged model's tensors that differ from task to task, but for the head.
        classifiers: names of the modules that hold the classifier.
        taken: names of a task's tensors, but for the head.
    """

    layout: GateLayout
    gains: Mapping[str, str]
    norms: frozenset[str]
    own: frozenset[str]
    classifiers: tuple[str, ...]
    taken: frozenset[str]

    def name_head(self, heads: Heads) -> dict[str, str]:
        """Name a classifier's tensors: name in an adapter → name in the model."""
        return name_head(heads, self.classifiers, taken=self.taken)

    @property
    def is_scale(self) -> bool:
        """Whether all gates are of kind `scale`, so that tasks can share their kernels."""
        return all(gate.kind.name == "scale" for gate in self.layout.sites.values())


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
    values = find_norm_tensors(model, norm=layout.norm, start=layout.start, exclude=exclude)
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
        classifiers=exclude,
        taken=frozenset((*values, *layout.gate_shapes())),
    )


def check_tensors(
    backbone: Backbone,
    kernels: Mapping[str, Tensor],
    plan: LayoutPlan,
    heads: Heads,
    *,
    task: str,
    given: Mapping[str, Tensor],
) -> None:
    """Hold a task's tensors against those that its layout has on a backbone.

    Args:
        backbone: the one that it was trained on.
        kernels: the tensors of its plain form, by name.
        plan: of the task's layout.
        heads: of as many labels as the task has.
        task: its name, for the error.
        given: its tensors.

    Raises:
        SiteError: one is missing, has no place there, or has another shape.
    """
    expected = plan.layout.gate_shapes()
    expected |= {name: tuple(kernels[name].shape) for name in plan.norms}
    gains = plan.gains.values()
    expected |= {name: tuple(backbone.model.get_parameter(name).shape) for name in gains}
    expected |= {name: heads[place] for name, place in plan.name_head(heads).items()}
    for name in expected.keys() | given.keys():
        got = tuple(given[name].shape) if name in given else None
        if got != expected.get(name):
            raise SiteError(
                f"Task '{task}' has '{name}' of shape {got or 'none'}, where this backbone with "
                f"norm '{plan.layout.norm}' takes {expected.get(name) or 'no such tensor'}.",
                hint="Train the adapter on this backbone.",
            )
