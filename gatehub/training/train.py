"""From labelled images to a saved adapter."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path

from gatehub.adapter import Adapter
from gatehub.adapter.trained_on import read_sources
from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.fold import check_backbone, fold
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training import defaults
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.checkpoint import remove_checkpoint
from gatehub.training.data import ImageData
from gatehub.training.destination import Destination, check_replaceable, claim_destination
from gatehub.training.economy.decoded import hold_decoded
from gatehub.training.economy.precision import check_precision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.evaluation import evaluate
from gatehub.training.loop import fit
from gatehub.training.objectives import Measured
from gatehub.training.observers import Observer
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.preflight import check_settings, check_storable
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport, illustrate, recorded_settings
from gatehub.training.start.origin import (
    Origin,
    attach_model,
    choose_form,
    count_known,
    open_origin,
)
from gatehub.training.steps.average import put_tensors

# What may be another when a run is continued; the images are compared by `Digests.order`, and the
# adapter that it goes on from by its digest.
_CHANGING = ("train_digest", "val_digest", "epochs", "init_from", "columns")


def train_adapter(
    backbone: Backbone,
    data: ImageData,
    out: str | Path | Destination,
    *,
    task: str,
    recipe: Recipe | None = None,
    gates: str | None = None,
    norm: str | None = None,
    start: str | None = None,
    dtype: str = "float16",
    preprocessing: Preprocessing | None = None,
    init_from: str | Path | Adapter | Origin | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int = 0,
    decoded_bytes: int = defaults.DECODED_BYTES,
    observer: Observer | None = None,
    team: Team = ALONE,
) -> TrainReport:
    """Train an adapter and save it, with its curve, its log and a picture of its gates.

    While it runs, its state lies beside `out`, in "OUT.training"; an interrupted run is continued
    from there with `resume`, and ends with the same bytes as one that was not interrupted.

    Args:
        backbone: it stays as it is.
        data: from `load_data`.
        out: the adapter's folder; an adapter of the same task that is there is replaced when the
            run is done. Or a place from `claim_destination`.
        task: name of the task.
        recipe: settings; None for the defaults.
        gates: see `attach_gates`; None for "auto".
        norm: see `attach_gates`; None for "affine".
        start: see `attach_gates`.
        dtype: how gates are stored; see `Adapter.save`.
        preprocessing: how files become tensors, recorded in the adapter; None for the backbone's.
            Other sizes than the backbone's own may suit a task: smaller ones are faster.
        init_from: an adapter of the same backbone to go on from, or its folder, or its name on a
            hub. Its gates, normalisation values and head rows are the start, its labels stay and
            keep their order, and classes that it lacks come behind them. Its gates, norm, start
            and preprocessing are those of the run.
        resume: continue an interrupted run, for more epochs too; without one, begin.
        force: replace an adapter of another task, too.
        workers: processes that decode images beside this one.
        decoded_bytes: as many bytes of training images are decoded once and held; the others are
            decoded in every epoch. The adapter is the same.
        observer: is told of steps and epochs.
        team: other processes that take a share of each batch; see `gatehub.training.parallel`.

    Raises:
        ResumeError: there is an interrupted run and `resume` is False, or it has other settings
            or other images.
        AdapterExistsError: something else is at `out`: no adapter, or another task's.
        DivergenceError: the loss became infinite or NaN.
        BackboneMismatchError: `init_from` was trained on another backbone.
        TrainingError: another run trains into `out`, or nothing can be written there; or what is
            asked for contradicts `init_from`.
        GatehubError: a bad name, kind, mode or stage.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    origin = None if init_from is None else open_origin(init_from)
    form = choose_form(origin, gates=gates, norm=norm, start=start)
    if origin is not None:
        origin.check_preprocessing(preprocessing)
    check_settings(
        task=task,
        gates=form.gates,
        norm=form.norm,
        start=form.start,
        dtype=dtype,
        batch_size=recipe.batch_size,
        workers=workers,
        decoded_bytes=decoded_bytes,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )
    check_precision(recipe.precision, next(backbone.parameters()).device)
    claim = claim_destination(out, task=task, data=data.source, resume=resume, force=force)
    with claim as place:
        seed_everything(recipe.seed)
        digests = data.digests()
        if origin is not None:
            data = origin.take_up(data)
        model = attach_model(backbone, data.labels, form, origin)
        arrange_kernels(model)
        if recipe.gradient_checkpointing:
            recompute_blocks(model.net)
        if preprocessing is not None:
            model.preprocessing = preprocessing
        settings: dict[str, str | int | float | bool | None] = {
            **recorded_settings(data, digests),
            "norm": form.norm,
            "gates": form.gates,
            **asdict(recipe),
            **({} if origin is None else origin.recorded()),
            **({"multi_label": True} if data.multi_label else {}),
        }
        changing = {*_CHANGING, *read_sources(settings)}
        lasting = {k: v for k, v in settings.items() if k not in changing}
        untrained = Adapter.from_model(model, task=task, training=settings)
        check_storable(untrained)
        check_backbone(backbone, untrained)  # its images may be too large
        held = hold_decoded(
            data.train, model.preprocessing, limit_bytes=decoded_bytes, workers=workers
        )
        fitted = fit(
            model,
            replace(data, train=held),
            recipe,
            folder=place.work,
            settings={
                "init_digest": settings.get("init_digest"),  # it decides much of what follows
                **lasting,
                "images": digests.order,
                "task": task,
                "labels": list(data.labels),
                "start": form.start,
                "input_size": list(model.preprocessing.input_size),
                "image_rules": model.preprocessing.to_json().get("image_rules"),
                "backbone_digest": backbone.digest,
            },
            known=count_known(origin),
            resume=resume,
            workers=workers,
            observer=observer,
            team=team,
        )
        settings |= asdict(fitted.choices)

        def measure() -> tuple[Adapter, Measured]:
            made = Adapter.from_model(model, task=task, training=settings).as_stored(dtype)
            images = evaluation_batches(data.val, made.preprocessing.transform(), workers=workers)
            folded = fold(backbone, made)
            arrange_kernels(folded)
            return made, evaluate(folded, images, objective=data.objective).decide()

        adapter, measured = measure()
        kept, begun = fitted.kept, fitted.history[0]
        by = data.objective.compared_by(recipe)
        score = attrgetter(by)
        at_start: float = getattr(begun, f"val_{by}")
        start_accuracy, start_map = begun.val_accuracy, begun.val_mean_average_precision
        if len(data.val) > recipe.val_images or score(measured) < at_start:
            # The epoch was chosen on a sample, and before its values were rounded.
            put_tensors(model, fitted.start)
            first, first_measured = measure()
            start_accuracy = first_measured.accuracy
            start_map = first_measured.mean_average_precision
            if recipe.keep != "last" and score(measured) < score(first_measured):
                adapter, measured, kept = first, first_measured, 0
        adapter = adapter.with_probe(backbone, dtype=dtype)
        adapter = adapter.with_metrics(measured.to_metrics())
        if (thresholds := measured.to_thresholds()) is not None:
            adapter = adapter.with_thresholds(thresholds)
        check_replaceable(place.folder, task=task, force=force)  # hours later
        adapter.save(
            place.folder, dtype=dtype, attachments=illustrate(adapter, fitted.history, kept=kept)
        )
        remove_checkpoint(place.work)
    return TrainReport(
        adapter=adapter,
        folder=place.folder,
        accuracy=measured.accuracy,
        start_accuracy=start_accuracy,
        mean_average_precision=measured.mean_average_precision,
        start_mean_average_precision=start_map,
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        adapter_bytes=(place.folder / "gates.safetensors").stat().st_size,
        epochs=fitted.history[-1].epoch,
        kept_epoch=kept,
        seconds=time.monotonic() - began,
    )
