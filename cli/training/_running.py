"""The run itself, once everything that it needs is at hand; and what follows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatehub.cli._output import Output
from gatehub.cli.training._devices import tell_plan
from gatehub.cli.training._methods import Chosen, choose_run
from gatehub.cli.training._recipe_options import LogTo
from gatehub.cli.training._search import AskedSearch, list_tried, run_asked, tabulate
from gatehub.cli.training._then import finetune_adapter
from gatehub.cli.training._watching import (
    log_training,
    saying_how_to_go_on,
    show_report,
    show_stem,
    watch_training,
)

if TYPE_CHECKING:
    from gatehub.adapter import Adapter
    from gatehub.backbone import Backbone
    from gatehub.backbone.preprocessing import Preprocessing
    from gatehub.training.data import ImageData
    from gatehub.training.destination import Destination
    from gatehub.training.parallel.team import Team
    from gatehub.training.recipe import Recipe
    from gatehub.training.report import Report
    from gatehub.training.start.origin import Form, Origin


def run_method(
    output: Output,
    chosen: Chosen,
    backbone: Backbone,
    images: ImageData,
    place: Destination,
    *,
    last: Destination | None,
    adapter: Adapter | None,
    asked: AskedSearch,
    out: Path,
    name: str,
    weights: Path | None,
    team: Team,
    form: Form,
    origin: Origin | None,
    begun_as: str,
    dtype: str,
    log_to: LogTo | None,
    task: str,
    recipe: Recipe,
    preprocessing: Preprocessing,
    workers: int,
    **settings: Any,
) -> None:
    """Train, go on from there where that is asked for, and show what came of it.

    Args:
        output: where to.
        chosen: the method.
        backbone: what is trained on.
        images: what it is trained on.
        place: where it is written.
        last: where the network is written that follows an adapter, or None.
        adapter: one that is trained already, of which only what follows is left to do.
        asked: what is to be searched for.
        out: the folder that was asked for.
        name: of the backbone, for `load_backbone`.
        weights: for `load_backbone`.
        team: who takes the steps; the others are told what they are to train.
        form: of the adapter.
        origin: the adapter that is gone on from, or None.
        begun_as: what the run begins as.
        dtype: how gates are stored.
        log_to: see `log_training`.
        task: name of the task.
        recipe: settings.
        preprocessing: how files become tensors.
        workers: processes that decode images beside this one.
        settings: for `train_adapter` and `train_network`.
    """
    from gatehub.errors import UngatedLayerWarning
    from gatehub.training.report import TrainReport

    settings |= {"task": task, "recipe": recipe, "workers": workers}
    report: Report
    search, searched = None, dict[str, Any]()
    if adapter is None:
        rates = recipe.gate_rate is None
        search = asked.plan(output, backbone, images, form=form, rates=rates)
    if search is not None:
        with (
            output.warnings_as_notes(UngatedLayerWarning),
            saying_how_to_go_on(output, place),
        ):
            train = run_asked(output, asked, search, task=task, shift=form.shift)
            found = train(
                backbone, images, place, dtype=dtype, preprocessing=preprocessing, **settings
            )
        searched = {"tried": list_tried(found), "table": tabulate(found, search)}
        report, adapter = found, found.adapter if last is not None else None
    elif adapter is None:
        tell_plan(
            team,
            name,
            backbone,
            images,
            weights=weights,
            recipe=recipe,
            form=form,
            origin=origin,
            preprocessing=preprocessing,
            workers=workers,
            decoded_bytes=settings["decoded_bytes"],
        )
        with (
            output.warnings_as_notes(UngatedLayerWarning),
            watch_training(output, task, start=begun_as, method=chosen.method) as shown,
            saying_how_to_go_on(output, place),
        ):
            report = choose_run(
                chosen,
                start=form.start,
                shift=form.shift,
                dtype=dtype,
                note=show_stem(output, task),
                team=team,
            )(
                backbone,
                images,
                place,
                preprocessing=preprocessing,
                init_from=origin,
                observer=log_training(output, shown, place, log_to),
                **settings,
            )
        if last is not None and isinstance(report, TrainReport):
            adapter = report.adapter
    if last is not None and adapter is not None:
        begun_as = "folded adapter"
        report = finetune_adapter(
            output, backbone, images, adapter, last, place=place, log_to=log_to, **settings
        )
    validated = len(images.val)
    show_report(
        output,
        report,
        out=out,
        validated=validated,
        begun_as=begun_as,
        adapter=adapter,
        **searched,
    )
