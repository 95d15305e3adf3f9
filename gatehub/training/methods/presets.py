"""The methods: which gates, which normalisation values, which steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from gatehub._text import quote
from gatehub.errors import TrainingError
from gatehub.gates.policy import NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a run that trains an adapter; None is left to the defaults.

    Args:
        gates: see `attach_gates`.
        norm: see `attach_gates`.
        epochs: see `Recipe`.
    """

    gates: str | None
    norm: str | None
    epochs: int | None


# What each method says for itself. The linear probe is where every run starts, so it is a run of
# no steps.
_PRESETS: Mapping[str, Asked] = {
    "gates": Asked(gates=None, norm=None, epochs=None),
    "scale": Asked(gates="scale", norm=None, epochs=None),
    "norm": Asked(gates=NONE, norm=None, epochs=None),
    "linear": Asked(gates=NONE, norm="frozen", epochs=0),
}
# What others do with normalisation: the first is the default. Random weights come with statistics
# that are nobody's, so from scratch they have to follow the batches.
_NETWORK_NORMS: Mapping[str, tuple[str, ...]] = {
    "finetune": ("affine", "stats"),
    "scratch": ("stats", "affine"),
    "lora": ("frozen",),
}
ADAPTER_METHODS = tuple(_PRESETS)
NETWORK_METHODS = tuple(_NETWORK_NORMS)
T = TypeVar("T")


def apply_method(method: str, asked: Asked) -> Asked:
    """Return what a method asks for, and what is asked for beside it.

    Args:
        method: "gates", "scale", "norm" or "linear".
        asked: what the user gave.

    Raises:
        TrainingError: no such method, or the user gave something else than it is.
    """
    preset = _PRESETS.get(method)
    if preset is None:
        raise TrainingError(
            f"method is {quote(method, 80)}; expected one of {', '.join(ADAPTER_METHODS)}."
        )
    for name in Asked.__slots__:
        own, given = getattr(preset, name), getattr(asked, name)
        if None not in (own, given) and own != given:
            raise TrainingError(
                f"Method '{method}' is {name} {own}, and {name} {given} is asked for.",
                hint=f"Leave {name} out, or take method 'gates'.",
            )
    if method == "norm" and asked.norm == "frozen":
        raise TrainingError(
            "Method 'norm' trains normalisation values, and norm 'frozen' is asked for.",
            hint="Take norm 'affine' or 'stats'; or method 'linear', which trains the head alone.",
        )
    return Asked(
        gates=_prefer(preset.gates, asked.gates),
        norm=_prefer(preset.norm, asked.norm),
        epochs=_prefer(preset.epochs, asked.epochs),
    )


def choose_network_norm(method: str, norm: str | None, *, begun: bool = False) -> str:
    """Return what becomes of normalisation by a method whose result is no adapter.

    Args:
        method: "finetune", "scratch" or "lora".
        norm: what is asked for; None leaves it to the method.
        begun: whether an adapter is to be gone on from.

    Raises:
        TrainingError: no such method, or one that does not do what is asked for.
    """
    modes = _NETWORK_NORMS.get(method)
    if modes is None:
        known = ", ".join((*ADAPTER_METHODS, *NETWORK_METHODS))
        raise TrainingError(f"method is {quote(method, 80)}; expected one of {known}.")
    if begun and method != "finetune":
        raise TrainingError(
            f"Method '{method}' begins anew, and an adapter to go on from is named.",
            hint="Leave init_from out, or take method 'finetune'.",
        )
    if norm is not None and norm not in modes:
        raise TrainingError(
            f"Method '{method}' takes norm {' or '.join(modes)}, and norm {quote(norm, 80)} is "
            "asked for.",
            hint="Leave norm out, or take method 'gates'.",
        )
    return norm or modes[0]


def _prefer(own: T | None, given: T | None) -> T | None:
    return given if own is None else own
