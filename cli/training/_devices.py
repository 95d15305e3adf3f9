"""`gatehub train` by several processes: of its own (`--devices N`), or a launcher's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from gatehub.backbone import Backbone
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.training.data import ImageData
    from gatehub.training.parallel.team import Team
    from gatehub.training.recipe import Recipe
    from gatehub.training.start.origin import Form, Origin

DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        min=1,
        max=64,
        help="Share each batch among so many GPUs, or processes where there are none; see also "
        "`accelerate launch`. Needs gatehub\\[accelerate].",
    ),
]


@contextmanager
def gather_team(device: str, devices: int) -> Iterator[tuple[Team, torch.device]]:
    """Yield the processes that train together, for the length of a with block, and our device.

    Of a launcher's processes the first one gets here; the others take part, and end.

    Args:
        device: as it was given.
        devices: as it was given.
    """
    from gatehub.backbone.device import find_device
    from gatehub.training.parallel.follower import LOST, follow
    from gatehub.training.parallel.launch import count_launched, join_launched
    from gatehub.training.parallel.leading import choose_device, lead
    from gatehub.training.parallel.team import ALONE, Lost

    if count_launched() > 1:
        with join_launched(device, devices) as (team, ours):
            if team.rank == 0:
                yield team, ours
                return
            try:
                follow(team, ours)
            except (Lost, KeyboardInterrupt) as error:  # the first one says what there is to say
                raise typer.Exit(LOST) from error
            raise typer.Exit
    elif devices == 1:
        yield ALONE, find_device(device)
    else:
        ours = choose_device(device, devices)
        with lead(ours, devices) as team:
            yield team, ours


def tell_plan(
    team: Team,
    backbone: str,
    loaded: Backbone,
    data: ImageData,
    *,
    weights: Path | None,
    recipe: Recipe,
    form: Form,
    origin: Origin | None,
    preprocessing: Preprocessing,
    workers: int,
    decoded_bytes: int,
) -> None:
    """Tell the others of a team what they are to train."""
    from gatehub.training.parallel.leading import check_team
    from gatehub.training.parallel.plan import Plan, write_plan

    if team.size == 1:
        return
    check_team(team.size, batch_size=recipe.batch_size, images=len(data.train), norm=form.norm)
    if origin is not None:
        data = origin.take_up(data)
    plan = Plan(
        backbone=backbone,
        weights=None if weights is None else str(weights),
        digest=loaded.digest,
        labels=data.labels,
        train=data.train,
        recipe=recipe,
        gates=form.gates,
        norm=form.norm,
        start=form.start,
        shift=form.shift,
        preprocessing=preprocessing,
        workers=workers,
        decoded_bytes=decoded_bytes,
    )
    team.tell(*write_plan(plan))
