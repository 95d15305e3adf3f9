"""`--method`: what is trained on the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatehub.training import defaults

if TYPE_CHECKING:
    from gatehub.training.parallel.team import Team
    from gatehub.training.report import Report

Check = Callable[..., None]


class Method(str, Enum):
    """What is trained on the backbone."""

    gates = "gates"
    scale = "scale"
    norm = "norm"
    linear = "linear"
    lora = "lora"
    finetune = "finetune"
    scratch = "scratch"


MethodOption = Annotated[
    Method,
    typer.Option(
        "--method",
        help="gates: model projection, arXiv 2602.06245. scale: the same with --gates scale. norm: "
        "normalisation values and head (--gates none). linear: the linear probe, where every run "
        "starts. These are adapters. lora: low-rank updates, in PEFT's format. finetune: every "
        "weight, in timm's format. scratch: the same from random weights.",
    ),
]
RankOption = Annotated[
    int | None,
    typer.Option(
        "--rank", min=1, help=f"Of --method lora.  \\[default: {defaults.RANK}]", show_default=False
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A method, and what is asked for beside it.

    Args:
        method: its name.
        makes_adapter: whether what it makes is an adapter.
        gates: see `attach_gates`; None for the default.
        norm: likewise.
        epochs: see `Recipe`.
        rank: of "lora".
        check: refuses what may not be replaced; see `claim_destination`.
    """

    method: str
    makes_adapter: bool
    gates: str | None
    norm: str | None
    epochs: int | None
    rank: int
    check: Check | None


def choose_method(
    method: Method,
    *,
    gates: str | None,
    norm: str | None,
    start: str | None,
    shift: bool,
    epochs: int | None,
    rank: int | None,
    rates: Mapping[str, float | None],
    begun: bool,
    devices: int,
    lr_find: bool,
) -> Chosen:
    """Return a method and its settings, or refuse what contradicts it.

    Args:
        method: what was asked for.
        gates: see `attach_gates`.
        norm: likewise.
        start: likewise.
        shift: likewise.
        epochs: see `Recipe`.
        rank: of "lora".
        rates: learning rates, by their option.
        begun: whether an adapter is to be gone on from.
        devices: on how many of them steps are taken.
        lr_find: whether rates are to be tried, and nothing trained.

    Raises:
        TrainingError: what is asked for is not the method's.
        BadParameter: an option of another method is given.
    """
    from gatehub.gates.policy import NONE
    from gatehub.training.methods.lora import check_peft
    from gatehub.training.methods.presets import (
        ADAPTER_METHODS,
        Asked,
        apply_method,
        choose_network_norm,
    )
    from gatehub.training.methods.products import check_product

    name = method.value
    if rank is not None and method is not Method.lora:
        raise typer.BadParameter(f"--rank is of --method lora, and the method is {name}.")
    if name in ADAPTER_METHODS:
        asked = apply_method(name, Asked(gates=gates, norm=norm, epochs=epochs))
        if shift and asked.gates == NONE:
            raise typer.BadParameter("--shift is of gated layers, and there are none.")
        for option, rate in rates.items():
            if asked.epochs == 0 and rate is not None:
                raise typer.BadParameter(f"{option} is of steps, and there are none (epochs 0).")
        return Chosen(
            method=name,
            makes_adapter=True,
            gates=asked.gates,
            norm=asked.norm,
            epochs=asked.epochs,
            rank=defaults.RANK,
            check=None,
        )
    for option, given in (
        ("--gates", gates is not None),
        ("--start", start is not None),
        ("--shift", shift),
        ("--devices", devices != 1),
        ("--lr-find", lr_find),
    ):
        if given:
            raise typer.BadParameter(f"{option} is of the methods that train adapters, not {name}.")
    norm = choose_network_norm(name, norm, begun=begun)
    if method is Method.lora:
        check_peft()
    return Chosen(
        method=name,
        makes_adapter=False,
        gates="none",
        norm=norm,
        epochs=epochs,
        rank=rank or defaults.RANK,
        check=partial(check_product, method=name),
    )


def choose_run(
    chosen: Chosen,
    *,
    start: str | None,
    shift: bool,
    dtype: str,
    note: Callable[[str], None],
    team: Team,
) -> Callable[..., Report]:
    """Return the training of a method, with the settings that are its own."""
    from gatehub.training.methods.train_network import train_network
    from gatehub.training.train import train_adapter

    if chosen.makes_adapter:
        return partial(
            train_adapter,
            gates=chosen.gates,
            norm=chosen.norm,
            start=start,
            shift=shift,
            dtype=dtype,
            note=note,
            team=team,
        )
    return partial(train_network, method=chosen.method, norm=chosen.norm, rank=chosen.rank)


def show_folder(out: Path, method: str) -> str | None:
    """Say what reads the folder that a method left; None of an adapter."""
    if method == "lora":
        return f"peft.PeftModel.from_pretrained(…, '{out}') reads it."
    if method in ("finetune", "scratch"):
        return f"timm.create_model('local-dir:{out}', pretrained=True) reads it."
    return None
