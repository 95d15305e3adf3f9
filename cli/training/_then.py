"""`--then finetune`: gates as the start of full fine-tuning."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatehub.cli._output import Output
from gatehub.cli.training._methods import Chosen
from gatehub.cli.training._watching import log_training, saying_how_to_go_on, watch_training

if TYPE_CHECKING:
    from gatehub.adapter import Adapter
    from gatehub.backbone import Backbone
    from gatehub.cli.training._recipe_options import LogTo
    from gatehub.training.data import ImageData
    from gatehub.training.destination import Destination
    from gatehub.training.recipe import Recipe
    from gatehub.training.report import Report
    from gatehub.training.sources import Given


class Then(str, Enum):
    """What follows the training of an adapter."""

    finetune = "finetune"


ThenOption = Annotated[
    Then | None,
    typer.Option(
        "--then",
        help="finetune: keep the adapter as DIR.adapter, fold it, and go on with every weight; DIR "
        "is the network, in timm's format. Rates that are given are the adapter's; the others are "
        "found anew.",
    ),
]


def check_then(then: Then | None, chosen: Chosen, *, devices: int, lr_find: bool) -> None:
    """Refuse what an adapter cannot be gone on with.

    Raises:
        BadParameter: the method makes no adapter, or an option is for an adapter alone.
    """
    if then is None:
        return
    if not chosen.makes_adapter:
        raise typer.BadParameter(
            f"--then goes on from an adapter, and method {chosen.method} makes none."
        )
    for option, given in (("--devices", devices != 1), ("--lr-find", lr_find)):
        if given:
            raise typer.BadParameter(f"{option} is of training an adapter alone, without --then.")


def hold_places(
    held: ExitStack,
    out: Path,
    then: Then | None,
    chosen: Chosen,
    *,
    task: str,
    data: Given,
    resume: bool,
    force: bool,
) -> tuple[Destination, Destination | None]:
    """Claim where a run writes, and where what follows it writes.

    Args:
        held: keeps the claims.
        out: the folder that was asked for.
        then: what follows.
        chosen: the method.
        task: see `claim_destination`.
        data: see `claim_destination`.
        resume: see `claim_destination`.
        force: see `claim_destination`.

    Raises:
        GatehubError: see `claim_destination`.
    """
    from gatehub.training.checkpoint import work_folder
    from gatehub.training.destination import claim_destination
    from gatehub.training.methods.products import check_product

    claim = partial(claim_destination, task=task, data=data, resume=resume, force=force)
    if then is None:
        return held.enter_context(claim(out, check=chosen.check)), None
    work = work_folder(out)
    beside = work.with_name(work.name.removesuffix(".training") + ".adapter")
    last = held.enter_context(claim(out, check=partial(check_product, method=then.value)))
    return held.enter_context(claim(beside)), last


def find_begun(
    place: Destination | Path, last: Destination | None, *, resume: bool, asked: dict[str, object]
) -> Adapter | None:
    """Return the adapter of a run that was interrupted behind it; None where there is none.

    Args:
        place: of the adapter.
        last: of what follows it, or None.
        resume: whether a run is to be continued.
        asked: settings as they are asked for now.

    Raises:
        ResumeError: the adapter was trained with other settings.
        AdapterFormatError: it is not sound.
    """
    from gatehub.adapter import Adapter
    from gatehub.errors import ResumeError
    from gatehub.training.checkpoint import has_checkpoint

    if last is None or isinstance(place, Path) or not resume or not has_checkpoint(last.work):
        return None
    adapter = Adapter.load(place.folder)
    layout = adapter.layout
    known = {**adapter.config.training, "start": layout.start, "shift": layout.has_shift}
    if adapter.probe is not None:
        known["dtype"] = adapter.probe.dtype
    for name, now in asked.items():
        if now is not None and known.get(name) != now:
            raise ResumeError(
                f"The adapter in '{place.folder}' was trained with {name} = {known.get(name)!r}, "
                f"but {now!r} is asked for now.",
                hint=f"Continue with its settings, or remove '{last.work}' and start again.",
            )
    return adapter


def finetune_adapter(
    output: Output,
    backbone: Backbone,
    images: ImageData,
    adapter: Adapter,
    last: Destination,
    *,
    place: Destination,
    task: str,
    recipe: Recipe,
    log_to: LogTo | None,
    **settings: Any,
) -> Report:
    """Fold an adapter and go on with every weight.

    Args:
        output: where to.
        backbone: what the adapter was trained on.
        images: what it was trained on.
        adapter: the start.
        last: where the network is written.
        place: where the adapter lies.
        task: name of the task.
        recipe: of the adapter's training; its rates are found anew.
        log_to: see `log_training`.
        settings: for `train_network`.
    """
    from gatehub.training.methods.train_network import train_network
    from gatehub.training.start.origin import Origin

    output.note(f"{place.folder} is the adapter; every weight is trained from there on.")
    with (
        watch_training(output, task, start="folded adapter", method="finetune") as shown,
        saying_how_to_go_on(output, last),
    ):
        return train_network(
            backbone,
            images,
            last,
            task=task,
            method="finetune",
            recipe=replace(
                recipe,
                epochs=recipe.epochs or None,
                gate_rate=None,
                norm_rate=None,
                head_rate=None,
            ),
            norm="stats" if adapter.layout.norm == "stats" else "affine",
            init_from=Origin(adapter=adapter, name=str(place.folder)),
            observer=log_training(output, shown, last, log_to),
            **settings,
        )
