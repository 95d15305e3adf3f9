"""A timm model's classifier: which modules it is, and a new one in their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from gatehub.backbone.structure import copy_structure
from gatehub.errors import BackboneError


def replace_classifier(model: nn.Module, classes: int) -> None:
    """Give a timm model a new classifier, in place, with freshly drawn weights.

    Raises:
        BackboneError: the model has no `reset_classifier`.
    """
    reset = getattr(model, "reset_classifier", None)
    if reset is None:
        raise BackboneError(
            f"{type(model).__name__} has no classifier that can be replaced "
            "(timm's reset_classifier).",
            hint="Give a timm image classification model.",
        )
    device, dtype = _placement(model)
    known = {id(t): t for t in model.parameters()}
    reset(classes)
    # Everything else may be shared with a backbone, so only the fresh layers are moved.
    for module in model.modules():
        if any(id(t) not in known for t in module.parameters(recurse=False)):
            module.to(device=device, dtype=dtype)


def split_classifier(model: nn.Module) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Find the classifier of a timm model, on any device, the meta device included.

    Found by replacing it on a structural copy: timm names classifiers in many ways, and some
    hold more than one layer.

    Returns:
        The names of the modules that a new classifier replaces or leaves out, and the tensors that
        survive it, by name.

    Raises:
        BackboneError: the model has no classifier that can be replaced.
    """
    probe = copy_structure(model)
    before = model.state_dict(keep_vars=True)
    with torch.random.fork_rng(devices=[]):
        replace_classifier(probe, 2)
    after = probe.state_dict(keep_vars=True)
    surviving = {id(t) for t in after.values()}
    known = {id(t) for t in before.values()}
    fresh = _enclose(name for name, t in after.items() if id(t) not in known)
    if not fresh:
        raise BackboneError(f"{type(model).__name__} has no classifier to replace.")
    gone = [name for name, t in before.items() if id(t) not in surviving]
    left = _enclose(name for name in gone if not is_inside(name, fresh))
    if "" in (*fresh, *left):
        raise BackboneError(
            f"{type(model).__name__} holds its classifier's tensors itself; expected them in a "
            "module of its own.",
            hint="Wrap them in a module.",
        )
    kept = {name: t for name, t in before.items() if id(t) in surviving}
    return (*fresh, *left), kept


def is_inside(name: str, modules: Sequence[str]) -> bool:
    """Whether `name` is one of the modules or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def _enclose(names: Iterable[str]) -> tuple[str, ...]:
    """Return the innermost module around the tensors of each top-level module."""
    paths: dict[str, list[list[str]]] = {}
    for name in names:
        *path, _ = name.split(".")
        paths.setdefault(path[0] if path else "", []).append(path)
    enclosing = []
    for group in paths.values():
        shared = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*group, strict=False))
        enclosing.append(".".join(level[0] for level in shared))
    return tuple(enclosing)


def _placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(model.parameters())
    return first.device, first.dtype
