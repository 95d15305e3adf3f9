"""Arguments of another type than a public function takes: refused before it runs, by one rule.

A function's annotations are the rule, so what it says it takes is what it takes:

    @checked(HubError)
    def push(folder: str | Path, repo: str, *, force: bool = False) -> PushResult: ...

    push("birds", None)     # HubError: push() got None as repo; expected str.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from types import GenericAlias, NoneType, SimpleNamespace, UnionType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from gatehub._text import quote, shorten
from gatehub.errors import GatehubError

P = ParamSpec("P")
R = TypeVar("R")

# How what users make with gatehub is had, by the name of its type.
_HINTS = {
    "Adapter": "Adapter.load(FOLDER) returns one, Adapter.from_model(model, task=…) makes one of a "
    "gated model.",
    "Backbone": "Use load_backbone(NAME), or Backbone(model) around a timm model of your own.",
    "BackboneIdentity": "Give timm's name of a model, such as 'resnet18.a1_in1k'.",
    "GatedModel": "attach_gates(backbone, labels=…) returns one.",
    "Module": "Give a timm model; load_backbone(NAME) loads one by its name.",
}
# Types that stand for what users know.
_KNOWN_AS = {"GateState": "Adapter"}
# Beside each of these, what is not of its class and works in its place, such as numpy's numbers.
_NUMBERS: Mapping[object, type] = {int: Integral, float: Real}
_CONTAINERS = (Mapping, Sequence, tuple)
_NO_LISTS = (str, bytes, bytearray, Mapping, Set)


def checked(
    error: type[GatehubError], *, but: Collection[str] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function refuse arguments that are not what its annotations say.

    Numbers of numpy's are numbers, arrays of texts are sequences of texts, and True is no number.
    Where a `Path` is taken, a text must be able to be one.

    Args:
        error: what is raised; it needs nothing but a message and a hint.
        but: parameters that the function checks itself.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        plain = inspect.unwrap(function)
        signature = inspect.signature(plain)
        where = f"{function.__qualname__.removesuffix('.__init__')}()"

        @functools.cache
        def expected() -> dict[str, Any]:
            # Not before the first call: an annotation may name what the module defines below.
            names = [name for name in plain.__annotations__ if name not in {"return", *but}]
            return _resolve({n: plain.__annotations__[n] for n in names}, plain.__globals__)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs).arguments
            except TypeError:  # Python's own sentence on a missing or unknown argument
                return function(*args, **kwargs)
            for name, kind in expected().items():
                several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
                if name in given:
                    wanted = GenericAlias(tuple, (kind, ...)) if several else kind
                    check_argument(given[name], wanted, name, where=where, error=error)
            return function(*args, **kwargs)

        return call

    return decorate


def check_fields(record: Any, error: type[GatehubError]) -> None:
    """Refuse a record with a field of another type than its class says; see `checked`."""
    cls = type(record)
    kinds = _resolve(inspect.get_annotations(cls), vars(sys.modules[cls.__module__]))
    for name, kind in kinds.items():
        where = f"{cls.__name__}()"
        check_argument(getattr(record, name), kind, name, where=where, error=error)


def _resolve(annotations: Mapping[str, Any], namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the types that annotations name."""
    return typing.get_type_hints(SimpleNamespace(__annotations__=annotations), namespace)


def check_argument(
    value: object, kind: Any, name: str, *, where: str, error: type[GatehubError]
) -> None:
    """Refuse one argument that is of another type than it should be; see `checked`.

    Args:
        value: what was given.
        kind: the type, as an annotation says it.
        name: the parameter's.
        where: who takes it, such as "push()".
        error: what is raised.
    """
    if misfit := _find_misfit(value, kind, name):
        found, expected = _show(misfit.value), _name(misfit.kind)
        hints = [_HINTS[_name(each)] for each in _split(kind) if _name(each) in _HINTS]
        raise error(
            f"{where} got {found} as {misfit.place}; expected {expected}.",
            hint=next(iter(hints), f"help({where[:-2]}) says what it takes."),
        )
    if Path in _split(kind) and isinstance(value, str | Path) and not _is_path(value):
        raise error(
            f"{where} got {_show(str(value))} as {name}, which is neither a path nor a name.",
            hint="Check the path.",
        )


class _Misfit(NamedTuple):
    """A value of another type than expected, and where it is, such as "labels[2]"."""

    place: str
    value: object
    kind: Any


def _find_misfit(value: object, kind: Any, place: str) -> _Misfit | None:
    misfits = [_compare(value, choice, place) for choice in _split(kind)]
    if None in misfits:
        return None
    # In a container of the right type, it is the item that is named.
    within = (misfit for misfit in misfits if misfit is not None and misfit.place != place)
    return next(within, _Misfit(place, value, kind))


def _compare(value: object, kind: Any, place: str) -> _Misfit | None:
    """Hold a value against one type, and its items against the types of items."""
    args = typing.get_args(kind)
    if not _is_instance(value, typing.get_origin(kind) or kind, args):
        return _Misfit(place, value, kind)
    if typing.get_origin(kind) not in _CONTAINERS:
        return None
    for part, item, expected in _list_items(value, args):
        if misfit := _find_misfit(item, expected, f"{place}{part}"):
            return misfit
    return None


def _is_instance(value: object, kind: Any, args: tuple[Any, ...]) -> bool:
    if kind is Any:
        return True
    if kind is type:
        return isinstance(value, type) and issubclass(value, args)
    if kind is tuple:
        return isinstance(value, tuple) and (Ellipsis in args or len(value) == len(args))
    if kind is Sequence:
        return _is_sequence(value)
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    return isinstance(value, kind)


def _is_sequence(value: object) -> bool:
    if not isinstance(value, Collection) or isinstance(value, _NO_LISTS):
        return False
    try:
        return len(value) >= 0
    except TypeError:  # an array without dimensions
        return False


def _list_items(value: Any, args: tuple[Any, ...]) -> Iterator[tuple[str, object, Any]]:
    """Yield a container's items, each with its place and the type that it should have."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield " (a key)", key, args[0]
            yield f"[{quote(key, 80)}]", item, args[1]
    else:
        for index, item in enumerate(value):
            yield f"[{index}]", item, args[0 if Ellipsis in args or len(args) == 1 else index]


def _split(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, UnionType)
    return typing.get_args(kind) if union else (kind,)


def _is_path(value: str | Path) -> bool:
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a character, which JSON can hold
        return False


def _name(kind: Any) -> str:
    *others, last = ["None" if each is NoneType else _name_one(each) for each in _split(kind)]
    return f"{', '.join(others)} or {last}" if others else last


def _name_one(kind: Any) -> str:
    name = getattr(typing.get_origin(kind) or kind, "__name__", str(kind))
    if name == "Callable":
        return "a function"
    name = _KNOWN_AS.get(name, name)
    if name not in ("Sequence", "Mapping", "tuple", "type"):
        return name
    inner = ["..." if each is Ellipsis else _name(each) for each in typing.get_args(kind)]
    return f"{name}[{', '.join(inner)}]"


def _show(value: object) -> str:
    if value is None:
        return "None"
    kind = type(value).__name__
    with suppress(ValueError):  # a number of more digits than Python writes
        if isinstance(value, bool | int | float | str | bytes):
            return f"{shorten(repr(value), 80)} ({kind})"
    return f"a value of type {kind}"
