"""Several tasks as one: task arithmetic on gates (arXiv 2212.04089).

What a task has learned is how far it moved from the backbone. Such moves are added with weights:

    M = 1 + Σ w_k (M_k - 1)        v = v_0 + Σ w_k (v_k - v_0)

for gates M, normalisation values and shifts v, where v_0 is the backbone's value. The frozen
filters give every gate its place, so the gates of two tasks mean the same, and need not be matched
first.

A head has no such origin, since each task begins with another one: heads are averaged. A label that
several adapters have gets the mean of its rows, weighted by the positive weights; one that only a
single adapter has keeps its row. So equal labels give a mean head, different ones a head over their
union. A negative weight takes a task away, and its head does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from gatehub._arguments import checked
from gatehub.adapter.adapter import Adapter
from gatehub.adapter.arithmetic.matrices import add_gates, order_tensors
from gatehub.backbone import Backbone
from gatehub.errors import AdapterError
from gatehub.gates.fold import check_backbone
from gatehub.gates.layout import GateLayout, SiteGate, find_own_values
from gatehub.gates.norms import NORMS
from gatehub.gates.policy import AUTO
from gatehub.problem import ONE_LABEL, Problem


@checked(AdapterError)
def merge_adapters(
    backbone: Backbone,
    adapters: Sequence[Adapter],
    *,
    weights: Sequence[float] | None = None,
    task: str | None = None,
) -> Adapter:
    """Return one adapter that holds what several have learned.

    Args:
        backbone: the one that all of them were trained on.
        adapters: at least one.
        weights: one for each; equal ones that sum to 1 unless given.
        task: name of the new task; the adapters' own if it is one, else theirs with "+" as "-".

    Raises:
        BackboneMismatchError: an adapter was trained on another backbone.
        AdapterError: weights that do not fit, none of them positive; adapters that prepare images
            in different ways, that differ in whether an image has several labels, or whose heads
            cannot be laid side by side.
        NegativeVarianceError: with these weights a running variance would be below 0.
    """
    weights = _check_weights(adapters, weights)
    first = adapters[0]
    for adapter in adapters:
        check_backbone(backbone, adapter)
        _check_alike(first, adapter)
    shares = [max(weight, 0.0) for weight in weights]
    heads = [(share, adapter) for share, adapter in zip(shares, adapters, strict=True) if share]
    labels = tuple(dict.fromkeys(label for _, adapter in heads for label in adapter.labels))
    layout, tensors = _add_moves(backbone, adapters, weights)
    config = replace(
        first.config,
        task=task or "-".join(dict.fromkeys(adapter.task for adapter in adapters))[:96],
        labels=labels,
        layout=layout,
        metrics={},
        training={
            "merged_from": ", ".join(f"{each.task} {each.digest[:12]}" for each in adapters),
            "merge_weights": ", ".join(f"{weight:g}" for weight in weights),
        },
        tensors={},
        files={},
        probe=None,
        problem=_join_thresholds(heads, labels),
    )
    tensors |= _join_heads(backbone, heads, labels)
    return Adapter(config=config, tensors=order_tensors(tensors, layout))


def _add_moves(
    backbone: Backbone, adapters: Sequence[Adapter], weights: Sequence[float]
) -> tuple[GateLayout, dict[str, Tensor]]:
    """Add gates and normalisation values, measured from the backbone's."""
    layouts = [adapter.layout for adapter in adapters]
    widest = max(layouts, key=lambda layout: len(layout.sites))
    for adapter in adapters:
        for site in adapter.layout.sites.keys() - widest.sites.keys():
            raise AdapterError(
                f"'{adapter.task}' has gates on '{site}', where adapters of more gates have none.",
                hint="Merge adapters whose gates begin at stages of one backbone.",
            )
    sites: dict[str, SiteGate] = {}
    tensors: dict[str, Tensor] = {}
    for site, gate in widest.sites.items():
        terms = [
            (weight, each.layout.sites[site], _read_parts(each, site))
            for weight, each in zip(weights, adapters, strict=True)
            if site in each.layout.sites
        ]
        merged, parts = add_gates(gate.shape, terms)
        sites[site] = replace(merged, shift=any(own.shift for _, own, _ in terms))
        tensors |= {f"{site}.{part}": value for part, value in parts.items()}
    kinds = {str(gate.kind) for gate in sites.values()}
    layout = GateLayout(
        policy=kinds.pop() if len(kinds) == 1 else AUTO,
        start=widest.start,
        norm=max((layout.norm for layout in layouts), key=NORMS.index),
        sites=sites,
    )
    values = backbone.model.state_dict()
    for name in _find_norms(backbone, layout):
        origin = values[name].double().cpu()
        moved = [
            weight * (each.tensors[name].double() - origin)
            for weight, each in zip(weights, adapters, strict=True)
            if name in each.tensors
        ]
        tensors[name] = (origin + sum(moved)).float()
    return layout, tensors


def _read_parts(adapter: Adapter, site: str) -> dict[str, Tensor]:
    return {part: adapter.tensors[f"{site}.{part}"] for part in adapter.layout.sites[site].parts}


def _join_heads(
    backbone: Backbone, heads: Sequence[tuple[float, Adapter]], labels: Sequence[str]
) -> dict[str, Tensor]:
    """Average the rows of each label, and whatever else a head holds."""
    tensors = [_read_head(backbone, adapter) for _, adapter in heads]
    if len({tuple(sorted(found)) for found in tensors}) > 1:
        raise AdapterError("The adapters' heads have different layers, so they cannot be merged.")
    same = len({frozenset(adapter.labels) for _, adapter in heads}) == 1
    joined = {}
    for name in tensors[0]:
        parts = [
            (share, adapter.labels, found[name])
            for (share, adapter), found in zip(heads, tensors, strict=True)
        ]
        if all(part.shape[:1] == (len(own),) for _, own, part in parts):
            joined[name] = torch.stack(
                [
                    _mean([(s, part[own.index(label)]) for s, own, part in parts if label in own])
                    for label in labels
                ]
            )
        elif same:
            joined[name] = _mean([(share, part) for share, _, part in parts])
        else:
            raise AdapterError(
                f"The adapters' heads hold '{name}', which belongs to no label, so heads of "
                "different labels cannot be laid side by side.",
                hint="Merge adapters that have the same labels.",
            )
    return joined


def _read_head(backbone: Backbone, adapter: Adapter) -> dict[str, Tensor]:
    """Return what is neither a gate nor a normalisation value, whatever it is called."""
    others = {*adapter.layout.gate_shapes(), *_find_norms(backbone, adapter.layout)}
    return {name: tensor for name, tensor in adapter.tensors.items() if name not in others}


def _find_norms(backbone: Backbone, layout: GateLayout) -> tuple[str, ...]:
    return find_own_values(backbone.model, layout, exclude=backbone.heads)


def _mean(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    shares = torch.tensor([share for share, _ in terms], dtype=torch.float64)
    stacked = torch.stack([tensor.double() for _, tensor in terms])
    mean: Tensor = torch.tensordot(shares / shares.sum(), stacked, dims=1)
    return mean.float()


def _join_thresholds(heads: Sequence[tuple[float, Adapter]], labels: Sequence[str]) -> Problem:
    if heads[0][1].problem.thresholds is None:
        return ONE_LABEL
    known: dict[str, list[tuple[float, float]]] = {label: [] for label in labels}
    for share, adapter in heads:
        for label, threshold in zip(adapter.labels, adapter.problem.thresholds or (), strict=True):
            known[label].append((share, threshold))
    return Problem(
        thresholds=tuple(
            min(sum(s * value for s, value in found) / sum(s for s, _ in found), 1.0)
            for found in known.values()
        )
    )


def _check_weights(
    adapters: Sequence[Adapter], weights: Sequence[float] | None
) -> tuple[float, ...]:
    if not adapters:
        raise AdapterError("No adapters were given to be merged; expected at least one.")
    weights = (1 / len(adapters),) * len(adapters) if weights is None else tuple(weights)
    if len(weights) != len(adapters):
        raise AdapterError(
            f"{len(adapters)} adapters are to be merged with {len(weights)} weights; expected one "
            "for each."
        )
    if not all(map(math.isfinite, weights)) or max(weights) <= 0:
        raise AdapterError(
            f"The weights are {', '.join(f'{weight:g}' for weight in weights)}; expected finite "
            "numbers, one of them positive at least.",
            hint="A negative weight takes away what a task has learned from one that is kept.",
        )
    return weights


def _check_alike(first: Adapter, other: Adapter) -> None:
    for field in fields(first.preprocessing):
        mine, theirs = (getattr(each.preprocessing, field.name) for each in (first, other))
        if mine != theirs:
            raise AdapterError(
                f"'{first.task}' prepares images with {field.name} {mine}, '{other.task}' with "
                f"{theirs}; what is merged has one preparation.",
                hint="Train one of them again with the other's.",
            )
    if first.problem.is_multi_label != other.problem.is_multi_label:
        several, one = (first, other) if first.problem.is_multi_label else (other, first)
        raise AdapterError(
            f"An image may have any number of labels for '{several.task}', and has one for "
            f"'{one.task}'; there is no task that is both.",
            hint="Merge adapters of one problem.",
        )
