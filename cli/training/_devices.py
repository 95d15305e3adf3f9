"""`gatehub train --devices N`: other processes beside this one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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
        help="Share each batch among so many GPUs, or processes where there are none.",
    ),
]


def gather_team(
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
    devices: tuple[torch.device, ...],
) -> AbstractContextManager[Team]:
    """Return the processes that train together; they run for the length of a with block."""
    import torch

    from gatehub.training.parallel.leading import check_team, lead
    from gatehub.training.parallel.plan import Plan
    from gatehub.training.parallel.team import ALONE

    if len(devices) == 1:
        return nullcontext(ALONE)
    check_team(len(devices), batch_size=recipe.batch_size, images=len(data.train), norm=form.norm)
    if origin is not None:
        data = origin.take_up(data)
    alike = len(set(devices)) == 1
    return lead(
        Plan(
            backbone=backbone,
            weights=None if weights is None else str(weights),
            digest=loaded.digest,
            labels=data.labels,
            train=data.train,
            recipe=recipe,
            gates=form.gates,
            norm=form.norm,
            start=form.start,
            preprocessing=preprocessing,
            workers=workers,
            devices=tuple(map(str, devices)),
            threads=max(1, torch.get_num_threads() // (len(devices) if alike else 1)),
        )
    )
