"""`gatehub train --lr-find`: a range test in place of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehub._disk import replacing
from gatehub.cli._output import Output

if TYPE_CHECKING:
    from gatehub.backbone import Backbone
    from gatehub.training.data import ImageData
    from gatehub.training.range_test import RateRange


def find_place(out: Path, data: Sequence[str], *, resume: bool, log: bool, devices: int) -> Path:
    """Return where the picture goes: to DIR if that is a PNG's name, else beside it.

    Raises:
        TrainingError: an option is given that only a training obeys.
        AdapterExistsError: it would be an image of the data, or something else is there.
        OSError: the folder cannot be written.
    """
    from gatehub.errors import AdapterExistsError, TrainingError
    from gatehub.training.destination import check_apart, check_path

    for option, given in (("--resume", resume), ("--log-to", log), ("--devices", devices > 1)):
        if given:
            raise TrainingError(
                f"With --lr-find no adapter is trained, so {option} means nothing.",
                hint=f"Leave out {option}; or --lr-find, to train.",
            )
    picture = out
    if out.suffix.lower() != ".png":
        check_path(out)
        picture = out.with_name(f"{out.name}.lr-find.png")
    for source in data:
        check_apart(picture, source)
    if picture.is_dir():
        raise AdapterExistsError(f"The picture would be '{picture}', which is a folder.")
    return picture


def find_rate(
    output: Output,
    picture: Path,
    backbone: Backbone,
    data: ImageData,
    *,
    task: str,
    **settings: Any,
) -> None:
    """Sweep the rates, draw what came of it, and say what to type next.

    Args:
        output: where to.
        picture: the file, from `find_place`.
        backbone: see `sweep_rates`.
        data: see `sweep_rates`.
        task: the task's name.
        settings: see `sweep_rates`.
    """
    from gatehub.errors import UngatedLayerWarning
    from gatehub.training.range_test import draw_range, sweep_rates

    picture.parent.mkdir(parents=True, exist_ok=True)
    with replacing(picture) as file:  # before the sweep: what cannot be written is told at once
        with (
            output.warnings_as_notes(UngatedLayerWarning),
            output.progress(f"{task}: trying rates") as advance,
        ):
            found = sweep_rates(backbone, data, progress=advance, **settings)
        title = f"Rates for {task} on {backbone.identity.name}"
        file.write(draw_range(found, title=title))
    output.result(
        {
            "task": task,
            "picture": str(picture),
            "gate_rate": found.found,
            "lowest": found.lowest,
            "suggested": found.suggested,
            "rates": list(found.rates),
            "losses": list(found.losses),
        },
        human=[
            f"{picture}: what each rate of the {found.learned} does to the loss.",
            _advise(found),
        ],
        quiet=str(picture),
    )


def _advise(found: RateRange) -> str:
    usual = f"Without --lr-find the same command trains the {found.learned} at {found.found:g}"
    if found.suggested is None:
        return (
            f"No rate lowered the loss in {len(found.rates)} steps, so there is nothing to choose. "
            f"{usual}, which it finds by itself."
        )
    return (
        f"{usual}, which it finds by itself. The loss was lowest at {found.lowest:.2g}; a tenth of "
        f"that is the other rate to try: --gate-rate {found.suggested:g}"
    )
