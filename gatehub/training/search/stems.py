"""`--start auto`: the longest stem that tasks can share for a given loss of accuracy.

What comes before the first gated stage is the backbone's own for every such task, so a mixed batch
runs it once. A stage that adds little to a task is better shared. Starts are tried from the last
stage backwards, each as a run of its own, until one is good enough: the later the start, the faster
its run.

TAPS (arXiv 2203.16708) finds the layers that a task needs by a penalty instead. Its form for stems,
a group lasso that pulls whole stages to M = 1 and norm values to the backbone's, was measured
against this (benchmarks/shared_stems.md): which stages come to rest hangs on the penalty's weight,
which has to be tried, too, and a last training has to follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gatehub.backbone.classifier import is_inside
from gatehub.compiler.tracing import copy_to_meta
from gatehub.gates.policy import NONE
from gatehub.gates.sites import find_sites
from gatehub.training.search.record import Trial, Tried

_CHAINS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage at which gates may begin.

    Args:
        name: of the module.
        shared: share of the backbone's multiplications that come before it, in [0, 1].
    """

    name: str
    shared: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestStem:
    """From all gates to the latest start whose loss is small enough; see `Search`.

    The linear probe is the last of them: it shares the whole backbone, and every run measures it.

    Args:
        gates: kind of the gates.
        norm: which normalisation values.
        stages: in their order; the first one is where the backbone begins.
        max_drop: the loss that is accepted, against gates from the first layer on: a fraction.
    """

    gates: str
    norm: str
    stages: Sequence[Stage]
    max_drop: float

    @property
    def name(self) -> str:
        return "start auto"

    def settings(self) -> Mapping[str, object]:
        return {
            "gates": self.gates,
            "norm": self.norm,
            "stages": [stage.name for stage in self.stages],
            "max_drop": self.max_drop,
        }

    def next_trial(self, tried: Sequence[Tried]) -> Trial | None:
        """Return the run of the latest start that is not done, until one is good enough."""
        if not tried:
            return self._trial(None)
        if self._suffices(tried[-1].score, tried) and len(tried) > 1:
            return None
        if self._suffices(tried[0].start_score, tried):
            return Trial(gates=NONE, norm="frozen")
        left = len(self.stages) - len(tried)
        return self._trial(self.stages[left].name) if left > 0 else None

    def choose(self, tried: Sequence[Tried]) -> Tried:
        """Return the last one if it is good enough, and else the one with all gates."""
        return tried[-1] if self._suffices(tried[-1].score, tried) else tried[0]

    def _suffices(self, score: float, tried: Sequence[Tried]) -> bool:
        return score >= tried[0].score - self.max_drop - 1e-9

    def _trial(self, start: str | None) -> Trial:
        return Trial(gates=self.gates, norm=self.norm, start=start)


def list_stages(
    model: nn.Module, *, exclude: Sequence[str], input_size: tuple[int, int, int]
) -> tuple[Stage, ...]:
    """Return the stages of a backbone that have gated layers, in their order.

    They are the network's own children, and the links of a chain that holds more than half of the
    gated layers, such as EfficientNet's `blocks`.

    Args:
        model: a timm model, on any device.
        exclude: names of the modules that hold the classifier.
        input_size: (channels, height, width) of an image.

    Raises:
        SiteError: a layer that cannot be gated.
    """
    sites = [site.name for site in find_sites(model, exclude=exclude)]

    def count(name: str) -> int:
        return sum(site == name or site.startswith(f"{name}.") for site in sites)

    def divide(module: nn.Module, prefix: str) -> list[str]:
        names: list[str] = []
        for child, part in module.named_children():
            name = f"{prefix}{child}"
            if is_inside(name, exclude) or not count(name):
                continue
            whole = isinstance(part, _CHAINS) and 2 * count(name) > len(sites)
            names += divide(part, f"{name}.") if whole else [name]
        return names

    names, work = divide(model, ""), count_work(model, input_size=input_size)
    order = list(dict(model.named_modules()))
    total = sum(work.values()) or 1
    return tuple(
        Stage(
            name=name,
            shared=sum(work.get(layer, 0) for layer in order[: order.index(name)]) / total,
        )
        for name in names
    )


def count_work(model: nn.Module, *, input_size: tuple[int, int, int]) -> dict[str, int]:
    """Return the multiplications of each convolution and linear layer, for one image, by name."""
    probe, work = copy_to_meta(model).eval(), dict[str, int]()

    def add(name: str, layer: nn.Module, given: object, answer: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        work[name] = work.get(name, 0) + answer.numel() * weight[0].numel()

    for name, layer in probe.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(partial(add, name))
    dtype = next(probe.parameters()).dtype
    with torch.no_grad():
        probe(torch.empty(1, *input_size, dtype=dtype, device="meta"))
    return work
