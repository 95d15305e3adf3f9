"""`--tune` and `--start auto`: several runs, of which the validation images choose one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatehub.cli._output import Output, format_bytes, format_percent, make_table
from gatehub.cli.training._watching import watch_training

if TYPE_CHECKING:
    from rich.table import Table

    from gatehub.backbone import Backbone
    from gatehub.cli.training._methods import Chosen
    from gatehub.training.data import ImageData
    from gatehub.training.observers import Observer
    from gatehub.training.search import LongestStem, Search, SearchReport, Trial, Tried
    from gatehub.training.start.origin import Form

AUTO_START = "auto"
_MAX_DROP = 0.01


class Tune(str, Enum):
    """Which settings are tried."""

    small = "small"
    auto = "auto"


TuneOption = Annotated[
    Tune | None,
    typer.Option(
        "--tune",
        help="small: up to eight runs of the settings that are not given (kind of gates, norm, "
        "rate, start), as a table; the best on the validation images is kept, of equals the "
        "smaller. auto: the same where there are 200 of these and 5 of each class, else one run.",
    ),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Of --start auto: how much accuracy on the validation images a longer shared stem may "
        f"cost, 0.01 for a point.  \\[default: {_MAX_DROP}]",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedSearch:
    """A search as it was asked for.

    Args:
        tune: which settings are to be tried, or None.
        max_drop: what a start that is looked for may cost, or None.
        start: first gated stage where it is given.
        given: settings that were given, by name.
    """

    tune: Tune | None
    max_drop: float | None
    start: str | None
    given: Mapping[str, object]

    def plan(
        self, output: Output, backbone: Backbone, images: ImageData, *, form: Form, rates: bool
    ) -> Search | None:
        """Return what is to be tried on a backbone and images; None for a single run.

        Args:
            output: is told where images are too few.
            backbone: what is trained on.
            images: what it is trained on.
            form: of the adapter.
            rates: whether rates are to be found.
        """
        from gatehub.training.search import LongestStem, TuneSmall, list_stages, suits

        if self.tune is None and self.max_drop is None:
            return None
        counts = images.val.count_labels().values()
        if self.tune is Tune.auto and not suits(len(images.val), min(counts, default=0)):
            output.paragraph(
                f"The {len(images.val)} validation images are too few to tell settings apart (200 "
                "are needed, and 5 of each class), so the default ones are trained."
            )
            return None
        stages = list_stages(
            backbone.model,
            exclude=backbone.heads,
            input_size=backbone.preprocessing.input_size,
        )
        if self.max_drop is not None:
            return LongestStem(
                gates=form.gates, norm=form.norm, stages=stages, max_drop=self.max_drop
            )
        names = [stage.name for stage in stages]
        gates, norm = (self.given.get(name) for name in ("gates", "norm"))
        return TuneSmall(
            gates=None if gates is None else str(gates),
            norm=None if norm is None else str(norm),
            start=self.start,
            stages=names,
            rates=rates,
        )


def ask_search(
    tune: Tune | None,
    start: str | None,
    max_drop: float | None,
    chosen: Chosen,
    *,
    rate: float | None,
    others: Mapping[str, bool],
) -> AskedSearch:
    """Return the search that was asked for, or refuse what contradicts it.

    Args:
        tune: as it was given.
        start: as it was given.
        max_drop: as it was given.
        chosen: the method.
        rate: of the gates, as it was given.
        others: options with which nothing is searched for, and whether they were given.

    Raises:
        BadParameter: an option that has no place in a search, or outside of one.
    """
    stem = start == AUTO_START
    if max_drop is not None and not stem:
        raise typer.BadParameter("--max-drop is of --start auto.")
    if max_drop is not None and not 0 <= max_drop < 1:
        raise typer.BadParameter("--max-drop is a share from 0 to below 1, such as 0.01.")
    if stem or tune is not None:
        asked = "--start auto" if stem else "--tune"
        clashes = {**others, "--tune": stem and tune is not None}
        for option in (option for option, given in clashes.items() if given):
            raise typer.BadParameter(f"{asked} and {option} do not go together.")
        if not chosen.makes_adapter or chosen.epochs == 0:
            raise typer.BadParameter(f"{asked} is of methods that train gates or norms.")
    given = {"gates": chosen.gates, "norm": chosen.norm, "gate_rate": rate, "epochs": chosen.epochs}
    given |= {"start": None if stem else start, "max_drop": max_drop}
    return AskedSearch(
        tune=tune,
        max_drop=(_MAX_DROP if max_drop is None else max_drop) if stem else None,
        start=None if stem else start,
        given={name: value for name, value in given.items() if value is not None},
    )


def run_asked(
    output: Output, asked: AskedSearch, search: Search, *, task: str, shift: bool
) -> Callable[..., SearchReport]:
    """Return the training of a search, with the settings that are its own; see `run_search`."""
    from functools import partial

    from gatehub.training.search import run_search

    @contextmanager
    def watch(number: int, trial: Trial) -> Iterator[Observer]:
        output.note(f"{task}: run {number}, {describe_trial(trial)}.")
        with watch_training(output, task) as shown:
            yield shown

    def tell(tried: Tried) -> None:
        if not tried.diverged:
            output.note(
                f"{task}: {format_percent(tried.score)} of the validation images with "
                f"{describe_trial(tried.trial)}."
            )

    return partial(
        run_search, search=search, shift=shift, given=asked.given, watching=watch, on_done=tell
    )


def describe_trial(trial: Trial) -> str:
    """Name the settings of a run."""
    if trial.is_probe:
        return "the linear probe"
    start = "" if trial.start is None else f" from {trial.start} on"
    rate = "" if trial.rate == 1 else f", {trial.rate:.2g} of the rates that are found"
    return f"gates {trial.gates}{start}, norm {trial.norm}{rate}"


def list_tried(report: SearchReport) -> list[dict[str, Any]]:
    """Return what was tried as JSON has it."""
    return [
        {
            **asdict(tried.trial),
            "score": None if tried.diverged else tried.score,
            "calibrated_loss": None if tried.diverged else tried.calibrated_loss,
            "trained_parameters": tried.trained_parameters,
            "adapter_bytes": tried.adapter_bytes,
            "seconds": round(tried.seconds, 2),
            "kept": place == report.kept,
        }
        for place, tried in enumerate(report.tried)
    ]


def tabulate(report: SearchReport, search: Search) -> Table:
    """Return what was tried as a table."""
    from gatehub.training.search import LongestStem

    if isinstance(search, LongestStem):
        return _tabulate_stems(report, search)
    rows = [
        (
            tried.trial.gates,
            tried.trial.norm,
            tried.trial.start or "first",
            f"{tried.trial.rate:.2g}",
            *_figures(tried),
            "kept" if place == report.kept else "",
        )
        for place, tried in enumerate(report.tried)
    ]
    return make_table(("gates", "norm", "start", "rates", *_FIGURES, ""), rows, left=3)


_FIGURES = ("validation", "loss", "numbers", "bytes", "seconds")


def _figures(tried: Tried) -> tuple[str, ...]:
    if tried.diverged:
        return "diverged", "", "", "", ""
    return (
        format_percent(tried.score),
        f"{tried.calibrated_loss:.3f}",
        f"{tried.trained_parameters:,}",
        format_bytes(tried.adapter_bytes),
        f"{tried.seconds:.0f}",
    )


def _tabulate_stems(report: SearchReport, search: LongestStem) -> Table:
    done = {tried.trial.start: tried for tried in report.tried if not tried.trial.is_probe}
    first = report.tried[0]
    kept = report.tried[report.kept]
    rows = []
    for place, stage in enumerate(search.stages):
        tried = done.get(stage.name if place else None)
        figures = ("not tried", "", "", "", "") if tried is None else _figures(tried)
        lost = "" if tried is None else f"{100 * (first.score - tried.score):+.1f}"
        mark = "kept" if tried is kept else ""
        rows.append((stage.name, *figures, lost, format_percent(stage.shared), mark))
    probe = next((tried for tried in report.tried if tried.trial.is_probe), None)
    figures = (format_percent(first.start_score), "", "", "", "")
    lost = f"{100 * (first.score - first.start_score):+.1f}"
    mark = "kept" if probe is not None and probe is kept else ""
    shown = figures if probe is None else _figures(probe)
    rows.append(("head alone", *shown, lost, format_percent(1.0), mark))
    return make_table(("start", *_FIGURES, "points lost", "shared", ""), rows)
