"""From labelled images to a saved adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.gates.fold import check_backbone, fold
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training import defaults
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.checkpoint import remove_checkpoint
from gatehub.training.data import ImageData
from gatehub.training.destination import Destination, check_replaceable, claim_destination
from gatehub.training.economy.precision import check_backbone_precision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.evaluation import evaluate
from gatehub.training.guidance.steering import Guide
from gatehub.training.methods.run import identify_run, run_training
from gatehub.training.objectives import Measured
from gatehub.training.observers import Observer
from gatehub.training.parallel.team import ALONE, Team
from gatehub.training.preflight import check_settings, check_storable
from gatehub.training.recipe import Recipe
from gatehub.training.report import TrainReport, illustrate, recorded_settings
from gatehub.training.start import Choices, KnownStart
from gatehub.training.start.origin import (
    Origin,
    attach_model,
    choose_form,
    count_known,
    hold_rows,
    open_origin,
)
from gatehub.training.steps.added_loss import NOTHING


@set_host_aside()
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
    shift: bool = False,
    dtype: str = "float16",
    preprocessing: Preprocessing | None = None,
    init_from: str | Path | Adapter | Origin | None = None,
    guide: Guide | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int = 0,
    decoded_bytes: int = defaults.DECODED_BYTES,
    observer: Observer | None = None,
    note: Callable[[str], None] | None = None,
    team: Team = ALONE,
    known_start: KnownStart | None = None,
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
        shift: see `attach_gates`.
        dtype: how gates are stored; see `Adapter.save`.
        preprocessing: how files become tensors, recorded in the adapter; None for the backbone's.
            Other sizes than the backbone's own may suit a task: smaller ones are faster.
        init_from: an adapter of the same backbone to go on from, or its folder, or its name on a
            hub. Its gates, normalisation values and head rows are the start, its labels stay and
            keep their order, and classes that it lacks come behind them. Its gates, norm, start
            and preprocessing are those of the run.
        guide: a network that steers the run, or its first steps; see `Guide`.
        resume: continue an interrupted run, for more epochs too; without one, begin.
        force: replace an adapter of another task, too.
        workers: processes that decode images beside this one.
        decoded_bytes: as many bytes of training images are decoded once and held; the others are
            decoded in every epoch. The adapter is the same. Where gates start late and images are
            not augmented, what the layers before give for them is held instead, if all of it fits;
            then the adapter is the same up to rounding.
        observer: is told of steps and epochs.
        note: is told, in a sentence, how often the layers before late gates are computed.
        team: other processes that take a share of each batch; see `gatehub.training.parallel`.
        known_start: what runs on the same images share; see `gatehub.training.search`.

    Raises:
        ResumeError: there is an interrupted run and `resume` is False, or it has other settings
            or other images.
        AdapterExistsError: something else is at `out`: no adapter, or another task's.
        DivergenceError: the loss became infinite or NaN.
        GuidanceError: the guide cannot steer this run.
        BackboneMismatchError: `init_from` was trained on another backbone.
        TrainingError: another run trains into `out`, or nothing can be written there; or what is
            asked for contradicts `init_from`.
        GatehubError: a bad name, kind, mode or stage.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    origin = None if init_from is None else open_origin(init_from)
    form = choose_form(origin, gates=gates, norm=norm, start=start, shift=shift)
    if origin is not None:
        origin.check_problem(multi_label=data.multi_label)
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
    check_backbone_precision(backbone, recipe.precision)
    if guide is not None:
        guide.check_run(recipe, processes=team.size, images=len(data.train))
    claim = claim_destination(out, task=task, data=data.source, resume=resume, force=force)
    with claim as place:
        seed_everything(recipe.seed)
        digests = data.digests()
        if origin is not None:
            data = origin.take_up(data)
        model = attach_model(backbone, data.labels, form, origin)
        hold_rows(model, data.train.unknown)
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
            **({} if guide is None else guide.recorded()),
            **({"shift": True} if form.shift else {}),
            **({"multi_label": True} if data.multi_label else {}),
        }
        untrained = Adapter.from_model(model, task=task, training=settings)
        check_storable(untrained)
        check_backbone(backbone, untrained)  # its images may be too large
        added = NOTHING if guide is None else guide.steer(model)

        def make(choices: Choices) -> tuple[Adapter, Measured]:
            recorded = settings | asdict(choices)
            made = Adapter.from_model(model, task=task, training=recorded).as_stored(dtype)
            images = evaluation_batches(data.val, made.preprocessing.transform(), workers=workers)
            folded = fold(backbone, made)
            arrange_kernels(folded)
            return made, evaluate(folded, images, objective=data.objective).decide()

        outcome = run_training(
            model,
            data,
            recipe,
            place=place,
            settings={
                **identify_run(settings, model, task=task, digests=digests, backbone=backbone),
                "start": form.start,
            },
            make=make,
            known=count_known(origin),
            resume=resume,
            workers=workers,
            decoded_bytes=decoded_bytes,
            observer=observer,
            note=note,
            team=team,
            added=added,
            known_start=known_start,
        )
        measured = outcome.measured
        adapter = outcome.made.with_probe(backbone, dtype=dtype)
        adapter = adapter.with_metrics(measured.to_metrics())
        if (thresholds := measured.to_thresholds()) is not None:
            if origin is not None:
                thresholds = origin.keep_thresholds(thresholds, data.val.unknown)
            adapter = adapter.with_thresholds(thresholds)
        check_replaceable(place.folder, task=task, force=force)  # hours later
        adapter.save(
            place.folder,
            dtype=dtype,
            attachments=illustrate(adapter, outcome.history, kept=outcome.kept),
        )
        remove_checkpoint(place.work)
    return TrainReport(
        adapter=adapter,
        task=task,
        folder=place.folder,
        metrics=adapter.config.metrics,
        accuracy=measured.accuracy,
        start_accuracy=outcome.start_accuracy,
        mean_average_precision=measured.mean_average_precision,
        start_mean_average_precision=outcome.start_mean_average_precision,
        calibrated_loss=measured.calibrated_loss(balanced=recipe.class_weights == "balanced"),
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        adapter_bytes=(place.folder / "gates.safetensors").stat().st_size,
        epochs=outcome.history[-1].epoch,
        kept_epoch=outcome.kept,
        seconds=time.monotonic() - began,
    )
