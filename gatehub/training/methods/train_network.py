"""From labelled images to a network of the task's own: what gates are compared with."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.classifier import is_inside
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.gates.fold import fold
from gatehub.training import defaults
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.checkpoint import remove_checkpoint
from gatehub.training.curve import draw_curve
from gatehub.training.data import ImageData
from gatehub.training.destination import Destination, claim_destination
from gatehub.training.economy.precision import check_backbone_precision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.evaluation import evaluate
from gatehub.training.guidance.steering import Guide
from gatehub.training.methods.learner import Learner
from gatehub.training.methods.lora import make_lora
from gatehub.training.methods.network import copy_weights, describe_network, draw_network
from gatehub.training.methods.presets import choose_network_norm
from gatehub.training.methods.products import check_product, write_product
from gatehub.training.methods.run import identify_run, run_training
from gatehub.training.methods.whole import WholeModel
from gatehub.training.objectives import Measured
from gatehub.training.observers import Observer
from gatehub.training.preflight import check_settings
from gatehub.training.recipe import Recipe
from gatehub.training.report import Report, recorded_settings
from gatehub.training.start import Choices
from gatehub.training.start.origin import Origin, count_known, hold_rows, open_origin
from gatehub.training.steps.added_loss import NOTHING


class _Stored(Learner, Protocol):
    def files(self) -> dict[str, bytes]:
        """Return what the model is at this moment, as files of timm's or PEFT's, by their name."""


@set_host_aside()
def train_network(
    backbone: Backbone,
    data: ImageData,
    out: str | Path | Destination,
    *,
    task: str,
    method: str,
    recipe: Recipe | None = None,
    norm: str | None = None,
    rank: int = defaults.RANK,
    preprocessing: Preprocessing | None = None,
    init_from: str | Path | Adapter | Origin | None = None,
    guide: Guide | None = None,
    resume: bool = False,
    force: bool = False,
    workers: int = 0,
    decoded_bytes: int = defaults.DECODED_BYTES,
    observer: Observer | None = None,
) -> Report:
    """Train as `train_adapter` does, by a method that leaves no adapter.

    The start, the steps, how rates are found and which epoch is kept are the same. What is written
    is timm's own format, which `timm.create_model("local-dir:OUT", pretrained=True)` and
    `load_backbone` read, or PEFT's.

    Args:
        backbone: it stays as it is.
        data: see `train_adapter`.
        out: the folder; what a run of the same task and method left there is replaced. Or a place
            from `claim_destination`.
        task: name of the task.
        method: "finetune" for every weight from the backbone's on, "scratch" for every weight from
            random ones on, or "lora" for low-rank updates through PEFT.
        recipe: settings; None for the defaults. Its `gate_rate` is the rate of what is trained in
            place of gates.
        norm: "affine": running statistics stay as they are; "stats": they follow the batches. None
            for "affine", and for "stats" from scratch. "frozen" with "lora", and no other.
        rank: of "lora".
        preprocessing: see `train_adapter`.
        init_from: an adapter of the backbone, with which "finetune" begins: folded, with its head.
        guide: see `train_adapter`; not with "lora".
        resume: see `train_adapter`.
        force: replace what a run of another task or method left, too.
        workers: see `train_adapter`.
        decoded_bytes: see `train_adapter`.
        observer: see `train_adapter`.

    Raises:
        GatehubError: see `train_adapter`; or timm cannot build the network again, or PEFT is not
            installed.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    origin = None if init_from is None else open_origin(init_from)
    norm = choose_network_norm(method, norm, begun=origin is not None)
    if origin is not None:
        origin.check_problem(multi_label=data.multi_label)
        origin.check_preprocessing(preprocessing)
        origin.check_backbone(backbone)
        preprocessing = origin.adapter.preprocessing
    check_settings(
        task=task,
        gates=None,
        norm=norm,
        start=None,
        dtype="float32",
        batch_size=recipe.batch_size,
        workers=workers,
        decoded_bytes=decoded_bytes,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )
    check_backbone_precision(backbone, recipe.precision)
    if guide is not None:
        guide.check_run(recipe, images=len(data.train), method=method)
    check = partial(check_product, method=method)
    claim = claim_destination(
        out, task=task, data=data.source, resume=resume, force=force, check=check
    )
    with claim as place:
        seed_everything(recipe.seed)
        digests = data.digests()
        if origin is not None:
            data = origin.take_up(data)
        model = _make_model(
            backbone,
            data.labels,
            method=method,
            norm=norm,
            rank=rank,
            preprocessing=preprocessing or backbone.preprocessing,
            origin=origin,
            seed=recipe.seed,
        )
        hold_rows(model, data.train.unknown)
        if recipe.gradient_checkpointing:
            recompute_blocks(model.net)
        settings: dict[str, str | int | float | bool | None] = {
            **recorded_settings(data, digests),
            "method": method,
            "norm": norm,
            **({"rank": rank} if method == "lora" else {}),
            **asdict(recipe),
            **({} if origin is None else origin.recorded()),
            **({} if guide is None else guide.recorded()),
            **({"multi_label": True} if data.multi_label else {}),
        }

        def make(choices: Choices) -> tuple[tuple[dict[str, bytes], Choices], Measured]:
            images = evaluation_batches(data.val, model.preprocessing.transform(), workers=workers)
            measured = evaluate(model, images, objective=data.objective).decide()
            return (model.files(), choices), measured

        outcome = run_training(
            model,
            data,
            recipe,
            place=place,
            settings=identify_run(settings, model, task=task, digests=digests, backbone=backbone),
            make=make,
            known=count_known(origin),
            resume=resume,
            workers=workers,
            decoded_bytes=decoded_bytes,
            observer=observer,
            added=NOTHING if guide is None else guide.steer(model),
        )
        (files, choices), measured = outcome.made, outcome.measured
        metrics = measured.to_metrics()
        thresholds = measured.to_thresholds()
        if thresholds is not None and origin is not None:
            thresholds = origin.keep_thresholds(thresholds, data.val.unknown)
        check(place.folder, task=task, force=force)  # hours later
        log = "".join(json.dumps(record.to_json()) + "\n" for record in outcome.history)
        title = f"{task} on {backbone.identity.name}, {method}"
        write_product(
            place.folder,
            {
                **files,
                "training.jsonl": log.encode(),
                "training.png": draw_curve(outcome.history, kept=outcome.kept, title=title),
            },
            {
                "task": task,
                "method": method,
                "labels": list(data.labels),
                "backbone": asdict(backbone.identity),
                "preprocessing": model.preprocessing.to_json(),
                "metrics": metrics,
                **({} if thresholds is None else {"thresholds": list(thresholds)}),
                "training": settings | asdict(choices),
            },
        )
        remove_checkpoint(place.work)
    return Report(
        task=task,
        folder=place.folder,
        metrics=metrics,
        accuracy=measured.accuracy,
        start_accuracy=outcome.start_accuracy,
        mean_average_precision=measured.mean_average_precision,
        start_mean_average_precision=outcome.start_mean_average_precision,
        trained_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        adapter_bytes=_count_bytes(files),
        epochs=outcome.history[-1].epoch,
        kept_epoch=outcome.kept,
        seconds=time.monotonic() - began,
    )


def _make_model(
    backbone: Backbone,
    labels: tuple[str, ...],
    *,
    method: str,
    norm: str,
    rank: int,
    preprocessing: Preprocessing,
    origin: Origin | None,
    seed: int,
) -> _Stored:
    backbone.check_unchanged()
    config = describe_network(backbone, labels, preprocessing)
    net = draw_network(backbone, config, seed=seed)
    if origin is not None:
        copy_weights(backbone, net, fold(backbone, origin.adapter).state_dict())
    elif method != "scratch":
        theirs, heads = backbone.model.state_dict(), backbone.heads
        copy_weights(backbone, net, {n: t for n, t in theirs.items() if not is_inside(n, heads)})
    if method == "lora":
        return make_lora(net, backbone, labels, rank=rank, preprocessing=preprocessing)
    return WholeModel(net, backbone, config, preprocessing=preprocessing, norm=norm)


def _count_bytes(files: Mapping[str, bytes]) -> int:
    return sum(len(data) for name, data in files.items() if name.endswith(".safetensors"))
