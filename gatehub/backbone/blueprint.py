"""What a network computes with apart from its tensors: its layers' classes, settings and hooks."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import cast

import torch
from timm.layers import BatchNormAct2d, SyncBatchNormAct
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from gatehub.backbone.classifier import is_inside

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_TORCHS_OWN = frozenset(vars(nn.Module()))
# What changes no answer of a network in evaluation mode, or only those of its classifier.
_NEUTRAL = _TORCHS_OWN | {
    "_compiled_call_impl",
    "default_cfg",
    "distillation",  # whether there is a second classifier
    "drop_prob",
    "drop_rate",
    "grad_checkpointing",
    "gradient_checkpointing",
    "inplace",
    "memory_efficient",
    "momentum",
    "num_classes",
    "pretrained_cfg",
    "process_group",
}
_ALIKE = {nn.SyncBatchNorm: nn.BatchNorm2d, SyncBatchNormAct: BatchNormAct2d}
_IN_ORDER = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_PLAIN = (bool, int, str, bytes, float, complex, torch.dtype, Enum, types.NoneType)
_CHECKPOINTS = ("torch.utils.checkpoint.checkpoint", "timm.models._manipulate.checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A module: its class, the order of its parts, its settings by name, and its hooks."""

    kind: str
    order: Sequence[str]
    settings: Mapping[str, object]
    hooks: object


class Blueprint:
    """Remembers the classes, settings and hooks of a network's modules.

    It is for mistakes, as the seal of the weights is: settings are plain values, and functions by
    name and code. What changes no answer in evaluation mode may change, such as modes, dropout,
    momentum and gradient checkpointing; so may attributes that the module's class does not know.

    Args:
        model: it is read, and not kept.
        exclude: names of the modules that hold the classifier, which may be replaced.
        functions: whether hooks and replaced methods count, too.
    """

    def __init__(self, model: nn.Module, *, exclude: Sequence[str], functions: bool = True) -> None:
        self._exclude = tuple(exclude)
        self._functions = functions
        self._known = self._read(model)

    def find_change(self, model: nn.Module) -> str | None:
        """Say what has changed first, such as "'bn1' has eps 0.1 instead of 1e-05", or None."""
        found = self._read(model)
        for name, layer in found.items():
            if name not in self._known:
                return f"layer '{name}' is new"
            if (change := self._compare(self._known[name], layer, model, name)) is not None:
                return f"layer '{name}' {change}" if name else f"it {change}"
        for name in self._known.keys() - found.keys():
            return f"layer '{name}' is gone"
        for name, layer in found.items():
            if layer.order != self._known[name].order:
                return f"the parts of '{name}' are in another order"
        return None

    def _read(self, model: nn.Module) -> dict[str, _Layer]:
        return {
            name: _Layer(
                kind=_name_of(_ALIKE.get(type(module), type(module))),
                order=[*module._modules] if isinstance(module, _IN_ORDER) else (),
                settings=dict(self._read_settings(module)),
                hooks=[_describe([*vars(module)[hooks].values()]) for hooks in _HOOKS]
                if self._functions
                else None,
            )
            for name, module in model.named_modules(remove_duplicate=False)
            if not is_inside(name, self._exclude)
        }

    def _read_settings(self, module: nn.Module) -> Iterator[tuple[str, object]]:
        for name, value in vars(module).items():
            if name in _NEUTRAL or (name == "p" and isinstance(module, _DropoutNd)):
                continue
            if callable(value) and (not self._functions or _computes_again(module, name, value)):
                continue
            if (described := _describe(value)) is not None:
                yield name, described

    def _compare(self, before: _Layer, after: _Layer, model: nn.Module, name: str) -> str | None:
        if before.kind != after.kind:
            return f"is a {_leaf(after.kind)} instead of a {_leaf(before.kind)}"
        for setting in (*before.settings, *after.settings):
            was, now = before.settings.get(setting), after.settings.get(setting)
            if was == now:
                continue
            if was is None and not hasattr(type(model.get_submodule(name)), setting):
                continue  # somebody's note on the module
            return f"has {setting} {_show(now)} instead of {_show(was)}"
        return None if before.hooks == after.hooks else "has other hooks"


def _describe(value: object) -> object:
    """Return what is equal for equal settings, in a copy and another process too.

    Returns:
        None for what is no setting: tensors, caches, and objects that may change by themselves.
    """
    match value:
        case _ if isinstance(value, _PLAIN):
            return repr(value)  # so NaN, too, is what it was
        case list() | tuple():
            return [_describe(part) for part in value]
        case functools.partial():
            given = [*value.args, *sorted(value.keywords.items())]
            return [_describe(value.func), _describe(given)]
        case types.MethodType():
            return _describe(value.__func__)
        case types.FunctionType():
            code = value.__code__
            consts = [const for const in code.co_consts if not isinstance(const, types.CodeType)]
            return [_name_of(value), code.co_code, code.co_names, repr(consts)]
        case nn.Module() | torch.Tensor():
            return None
        case _ if callable(value):
            return _name_of(value if hasattr(value, "__qualname__") else type(value))
    return None


def _name_of(value: object) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def _leaf(kind: str) -> str:
    return kind.rpartition(".")[2]


def _show(described: object) -> str:
    """Return a setting for an error: a plain value as it is, a function by its name."""
    if described is None:
        return "something else"
    if isinstance(described, str):
        return described
    parts = cast(list[object], described)
    if len(parts) == 4 and isinstance(parts[1], bytes):
        return str(parts[0])
    return f"({', '.join(map(_show, parts))})"


def _computes_again(module: nn.Module, name: str, value: object) -> bool:
    """Whether a method is the module's own under gradient checkpointing, which answers alike."""
    return (
        isinstance(value, functools.partial)
        and _name_of(value.func) in _CHECKPOINTS
        and len(value.args) == 1
        and isinstance(value.args[0], types.MethodType)
        and value.args[0].__self__ is module
        and value.args[0].__func__ is getattr(type(module), name, None)
    )
