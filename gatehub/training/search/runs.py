"""The runs of a search, one after another, and the adapter of the one that is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gatehub.adapter import Adapter
from gatehub.adapter.card.tried import GIVEN, SEARCH, TRIED, write_tried
from gatehub.adapter.folder import OPTIONAL_FILES, TENSORS_FILE
from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.errors import DivergenceError
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.gates.policy import NONE
from gatehub.training.batches import seed_everything
from gatehub.training.checkpoint import TRIALS_FILE, EpochRecord, work_folder
from gatehub.training.data import ImageData
from gatehub.training.destination import Destination, check_replaceable, claim_destination
from gatehub.training.economy.precision import check_backbone_precision
from gatehub.training.observers import Observer, Step
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport
from gatehub.training.search.record import (
    Search,
    Trial,
    Tried,
    read_trials,
    remove_trial,
    remove_trials,
    trial_folder,
    write_trials,
)
from gatehub.training.start import Choices, KnownStart, find_start
from gatehub.training.start.origin import Form, attach_model
from gatehub.training.train import train_adapter

Watching = Callable[[int, Trial], AbstractContextManager[Observer | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport(TrainReport):
    """How a search went: the report of the run that was kept, and all that was tried.

    Args:
        tried: in their order.
        kept: the place of the one that was kept.
    """

    tried: Sequence[Tried]
    kept: int


@set_host_aside()
def run_search(
    backbone: Backbone,
    data: ImageData,
    out: str | Path | Destination,
    *,
    task: str,
    search: Search,
    recipe: Recipe | None = None,
    shift: bool = False,
    given: Mapping[str, object] | None = None,
    dtype: str = "float16",
    preprocessing: Preprocessing | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int = 0,
    watching: Watching | None = None,
    on_done: Callable[[Tried], None] | None = None,
    **settings: Any,
) -> SearchReport:
    """Train by several settings, and save the adapter of the one that validation chooses.

    All runs have the same images, split and seed. The backbone's features, the linear probe and
    the size of random crops are found once, for all of them. A search that was interrupted is
    continued with `resume`: runs that are done are not repeated, and the one that was under way
    goes on from its last whole epoch.

    Args:
        backbone: it stays as it is.
        data: from `load_data`.
        out: see `train_adapter`.
        task: name of the task.
        search: what is tried, and what is kept.
        recipe: settings; the search may set its rates.
        shift: see `attach_gates`.
        given: settings that were given and not searched for, which the adapter remembers.
        dtype: see `train_adapter`.
        preprocessing: see `train_adapter`.
        resume: see `train_adapter`.
        force: see `train_adapter`.
        workers: see `train_adapter`.
        watching: returns what a run happens in, and who is told of its steps.
        on_done: is told of each run that is done, those before an interruption first.
        settings: for `train_adapter`.

    Raises:
        ResumeError: there is an interrupted run and `resume` is False, or it was another search.
        GatehubError: see `train_adapter`.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    check_backbone_precision(backbone, recipe.precision)
    with claim_destination(out, task=task, data=data.source, resume=resume, force=force) as place:
        own = _identify(backbone, data, search, recipe, task=task, dtype=dtype, shift=shift)
        tried = read_trials(place.work, own)
        for one in tried if on_done is not None else ():
            on_done(one)  # type: ignore[misc]
        known: KnownStart | None = None
        try:
            while (trial := search.next_trial(tried)) is not None:
                if known is None:
                    first = tried[0].trial if tried else trial
                    known = _find_start(
                        backbone, data, first, recipe, preprocessing, shift=shift, workers=workers
                    )
                number = len(tried) + 1
                folder = trial_folder(place.work, number)
                state = work_folder(folder)
                state.mkdir(parents=True, exist_ok=True)
                try:
                    with (watching or _watch_nothing)(number, trial) as observer:
                        report = train_adapter(
                            backbone,
                            data,
                            Destination(folder=folder, work=state),
                            task=task,
                            recipe=replace(recipe, epochs=0) if trial.is_probe else recipe,
                            gates=trial.gates,
                            norm=trial.norm,
                            start=trial.start,
                            shift=shift and trial.gates != NONE,
                            dtype=dtype,
                            preprocessing=preprocessing,
                            resume=True,
                            force=True,
                            workers=workers,
                            observer=_Recording(place.work, own, tried, observer),
                            known_start=replace(known, rate=trial.rate),
                            **settings,
                        )
                    tried.append(_sum_up(trial, report))
                except DivergenceError:
                    if trial.rate <= 1:
                        raise
                    tried.append(Tried(trial=trial, diverged=True))
                write_trials(place.work, own, tried)
                remove_trial(state)
                if on_done is not None:
                    on_done(tried[-1])
        except BaseException:
            with suppress(OSError):  # it holds something
                work_folder(trial_folder(place.work, len(tried) + 1)).rmdir()
            raise
        best = search.choose(tried)
        kept = tried.index(best)
        adapter = _remember(trial_folder(place.work, kept + 1), search, tried, given or {})
        check_replaceable(place.folder, task=task, force=force)  # hours later
        chosen = trial_folder(place.work, kept + 1)
        attachments = {
            n: (chosen / n).read_bytes() for n in OPTIONAL_FILES if (chosen / n).exists()
        }
        adapter.save(place.folder, dtype=dtype, attachments=attachments)
        remove_trials(place.work)
    return _report(adapter, place.folder, tried, kept, seconds=time.monotonic() - began)


def _identify(
    backbone: Backbone,
    data: ImageData,
    search: Search,
    recipe: Recipe,
    *,
    task: str,
    dtype: str,
    shift: bool,
) -> dict[str, object]:
    return {
        "kind": search.name,
        **search.settings(),
        **asdict(recipe),
        "task": task,
        "dtype": dtype,
        "shift": shift,
        "labels": list(data.labels),
        "images": data.digests().order,
        "backbone_digest": backbone.digest,
    }


def _find_start(
    backbone: Backbone,
    data: ImageData,
    trial: Trial,
    recipe: Recipe,
    preprocessing: Preprocessing | None,
    *,
    shift: bool,
    workers: int,
) -> KnownStart:
    """Find what all runs begin with, by the form of the first one, whichever comes next."""
    seed_everything(recipe.seed)
    form = Form(gates=trial.gates, norm=trial.norm, start=trial.start, shift=shift)
    model = attach_model(backbone, data.labels, form)
    arrange_kernels(model)
    if preprocessing is not None:
        model.preprocessing = preprocessing
    return find_start(model, data, recipe, workers=workers)


def _sum_up(trial: Trial, report: TrainReport) -> Tried:
    return Tried(
        trial=trial,
        accuracy=report.accuracy,
        start_accuracy=report.start_accuracy,
        mean_average_precision=report.mean_average_precision,
        start_mean_average_precision=report.start_mean_average_precision,
        calibrated_loss=report.calibrated_loss,
        trained_parameters=report.trained_parameters,
        adapter_bytes=report.adapter_bytes,
        epochs=report.epochs,
        kept_epoch=report.kept_epoch,
        seconds=report.seconds,
    )


def _remember(
    folder: Path, search: Search, tried: Sequence[Tried], given: Mapping[str, object]
) -> Adapter:
    """Return the adapter of a run, with what else was tried."""
    adapter = Adapter.load(folder)
    rows = [one.to_row() for one in tried if not one.diverged]
    recorded = {SEARCH: search.name, TRIED: write_tried(rows), GIVEN: json.dumps(dict(given))}
    training = {**adapter.config.training, **recorded}
    return replace(adapter, config=replace(adapter.config, training=training))


def _report(
    adapter: Adapter, folder: Path, tried: Sequence[Tried], kept: int, *, seconds: float
) -> SearchReport:
    best = tried[kept]
    return SearchReport(
        adapter=adapter,
        task=adapter.task,
        folder=folder,
        metrics=adapter.config.metrics,
        accuracy=best.accuracy,
        start_accuracy=best.start_accuracy,
        mean_average_precision=best.mean_average_precision,
        start_mean_average_precision=best.start_mean_average_precision,
        calibrated_loss=best.calibrated_loss,
        trained_parameters=best.trained_parameters,
        adapter_bytes=(folder / TENSORS_FILE).stat().st_size,
        epochs=best.epochs,
        kept_epoch=best.kept_epoch,
        seconds=seconds,
        tried=tuple(tried),
        kept=kept,
    )


def _watch_nothing(number: int, trial: Trial) -> AbstractContextManager[Observer | None]:
    return nullcontext()


class _Recording:
    """Writes the record of a search as soon as there is something to go on from."""

    def __init__(
        self,
        work: Path,
        settings: Mapping[str, object],
        tried: Sequence[Tried],
        told: Observer | None,
    ) -> None:
        self._work, self._settings, self._tried, self._told = work, settings, tried, told

    def on_start(
        self, choices: Choices, history: Sequence[EpochRecord], *, steps_per_epoch: int
    ) -> None:
        if self._told is not None:
            self._told.on_start(choices, history, steps_per_epoch=steps_per_epoch)

    def on_step(self, step: Step) -> None:
        if self._told is not None:
            self._told.on_step(step)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        if not (self._work / TRIALS_FILE).is_file():
            write_trials(self._work, self._settings, self._tried)
        if self._told is not None:
            self._told.on_epoch(record, epochs)
