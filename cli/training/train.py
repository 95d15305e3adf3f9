"""gatehub train: from images to an adapter.

gatehub train --backbone resnet18.a1_in1k --data photos/ --task birds --out birds
gatehub train --backbone resnet18.a1_in1k --data more/ --task birds --out birds --init-from birds
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from gatehub._text import shorten
from gatehub.cli import _options as shared
from gatehub.cli._data import choose_workers, decode_data, show_classes
from gatehub.cli._errors import reports_errors
from gatehub.cli._output import Format, FormatOption, Output
from gatehub.cli.training import _guidance_options as guidance
from gatehub.cli.training import _recipe_options as recipes
from gatehub.cli.training import _speed_options as speed
from gatehub.cli.training._devices import DevicesOption, gather_team
from gatehub.cli.training._lr_find import find_place, find_rate
from gatehub.cli.training._methods import (
    Method,
    MethodOption,
    RankOption,
    choose_method,
    show_folder,
)
from gatehub.cli.training._origin import (
    BackgroundOption,
    GatesOption,
    InitFromOption,
    NormOption,
    ShiftOption,
    StartOption,
    adjust_images,
    describe_origin,
    find_origin,
)
from gatehub.cli.training._running import run_method
from gatehub.cli.training._search import MaxDropOption, TuneOption, ask_search
from gatehub.cli.training._then import (
    ThenOption,
    check_then,
    find_begun,
    hold_places,
)
from gatehub.training import defaults


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        epilog="Example: gatehub train --backbone demo --data sklearn:digits "
        "--task digits --out digits"
    )(train)


@reports_errors
def train(
    context: typer.Context,
    backbone: Annotated[str, typer.Option("--backbone", help=shared.BACKBONE_HELP)],
    data: shared.DataOption,
    task: Annotated[str, typer.Option("--task", help="Name of the task.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the adapter.")],
    columns: shared.ColumnsOption = None,
    multi_label: recipes.MultiLabelOption = False,
    method: MethodOption = Method.gates,
    rank: RankOption = None,
    then: ThenOption = None,
    init_from: InitFromOption = None,
    hub: shared.HubOption = None,
    gates: GatesOption = None,
    norm: NormOption = None,
    start: StartOption = None,
    max_drop: MaxDropOption = None,
    shift: ShiftOption = False,
    tune: TuneOption = None,
    epochs: recipes.EpochsOption = None,
    batch_size: recipes.BatchSizeOption = defaults.BATCH_SIZE,
    gate_rate: recipes.GateRateOption = None,
    head_rate: recipes.HeadRateOption = None,
    warmup: recipes.WarmupOption = defaults.WARMUP,
    averaging: recipes.AveragingOption = defaults.AVERAGING,
    label_smoothing: recipes.LabelSmoothingOption = defaults.LABEL_SMOOTHING,
    class_weights: recipes.ClassWeightsOption = recipes.ClassWeights.none,
    keep: recipes.KeepOption = recipes.Keep.auto,
    patience: recipes.PatienceOption = None,
    val_images: recipes.ValImagesOption = defaults.VAL_IMAGES,
    min_crop: recipes.MinCropOption = None,
    hflip: recipes.HflipOption = defaults.HFLIP,
    auto_augment: recipes.AutoAugmentOption = defaults.AUTO_AUGMENT,
    color_jitter: recipes.ColorJitterOption = defaults.COLOR_JITTER,
    seed: recipes.SeedOption = 0,
    val_fraction: recipes.ValFractionOption = 0.2,
    train_images: recipes.TrainImagesOption = None,
    input_size: recipes.InputSizeOption = None,
    background: BackgroundOption = None,
    skip_bad: shared.SkipBadOption = False,
    lr_find: recipes.LrFindOption = False,
    log_to: recipes.LogToOption = None,
    dtype: recipes.DtypeOption = "float16",
    resume: recipes.ResumeOption = False,
    force: recipes.ForceOption = False,
    weights: shared.WeightsOption = None,
    workers: shared.WorkersOption = None,
    guide: guidance.GuideOption = None,
    guide_file: guidance.GuideFileOption = None,
    guide_untrained: guidance.GuideUntrainedOption = False,
    guide_weight: guidance.GuideWeightOption = None,
    guide_steps: guidance.GuideStepsOption = None,
    precision: speed.PrecisionOption = speed.Precision.float32,
    gradient_checkpointing: speed.GradientCheckpointingOption = False,
    decoded_bytes: speed.DecodedBytesOption = defaults.DECODED_BYTES,
    device: shared.DeviceOption = "auto",
    devices: DevicesOption = 1,
    format: FormatOption = Format.human,
) -> None:
    """Train an adapter on labelled images; writes the adapter, its log and its curve."""
    from gatehub.backbone import check_backbone, load_backbone
    from gatehub.backbone.images import ImageRules, parse_colour
    from gatehub.training.checkpoint import has_checkpoint
    from gatehub.training.data import list_data
    from gatehub.training.destination import Destination
    from gatehub.training.economy.precision import check_precision
    from gatehub.training.observers.tensorboard import check_tensorboard
    from gatehub.training.preflight import check_settings, check_structure
    from gatehub.training.range_test import check_sweep
    from gatehub.training.recipe import Recipe
    from gatehub.training.split import SplitSettings, check_split
    from gatehub.training.start.origin import Form, choose_form

    output = Output(format)
    # Of processes that a launcher made, the first one alone goes on from here, and talks.
    team, ours = context.with_resource(gather_team(device, devices))
    if log_to is not None:
        check_tensorboard()
    # What costs least is checked first: whoever mistyped an option need not wait for the images.
    chosen = choose_method(
        method,
        gates=gates,
        norm=norm,
        start=start,
        shift=shift,
        epochs=epochs,
        rank=rank,
        rates={"--gate-rate": gate_rate, "--head-rate": head_rate},
        begun=init_from is not None,
        devices=team.size,
        lr_find=lr_find,
    )
    check_then(then, chosen, devices=team.size, lr_find=lr_find)
    alone = {"--lr-find": lr_find, "--log-to": log_to is not None, "--devices": team.size > 1}
    alone |= {"--init-from": init_from is not None}
    search = ask_search(tune, start, max_drop, chosen, rate=gate_rate, others=alone)
    gates, norm, start, epochs = chosen.gates, chosen.norm, search.start, chosen.epochs
    check_settings(
        task=task,
        gates=gates,
        norm=norm,
        start=start,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers or 0,
        decoded_bytes=decoded_bytes,
        gradient_checkpointing=gradient_checkpointing,
    )
    rules = None if background is None else ImageRules(background=parse_colour(background))
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        gate_rate=gate_rate,
        head_rate=head_rate,
        warmup=warmup,
        averaging=averaging,
        label_smoothing=label_smoothing,
        class_weights=class_weights.value,
        keep=keep.value,
        patience=patience,
        val_images=val_images,
        min_crop=min_crop,
        hflip=hflip,
        auto_augment=auto_augment,
        color_jitter=color_jitter,
        precision=precision.value,
        gradient_checkpointing=gradient_checkpointing,
        seed=seed,
    )
    split = SplitSettings(seed=seed, val_fraction=val_fraction, train_images=train_images)
    check_split(**split)
    check_precision(precision.value, ours)
    check_backbone(backbone, weights=weights)
    asked_guide = guidance.AskedGuide(
        guide, guide_file, untrained=guide_untrained, weight=guide_weight, steps=guide_steps
    )
    twice = then is not None
    asked_guide.check(recipe, method=method.value, devices=team.size, lr_find=lr_find, twice=twice)
    origin = find_origin(output, init_from, hub, input_size=input_size, rules=rules)
    if origin is not None:
        origin.check_problem(multi_label=multi_label)
    begun_as = "linear probe" if origin is None else f"adapter {shorten(origin.name)}"
    if chosen.makes_adapter:
        form = choose_form(origin, gates=gates, norm=norm, start=start, shift=shift)
    else:
        form = Form(gates="none", norm="frozen", start=None)
    with ExitStack() as held:
        place: Path | Destination
        last: Destination | None = None
        if lr_find:
            check_sweep(form, recipe)
            logs = log_to is not None
            place = find_place(out, data, resume=resume, log=logs, devices=team.size)
        else:
            place, last = hold_places(
                held, out, then, chosen, task=task, data=data, resume=resume, force=force
            )
        listing = list_data(data, columns=columns, multi_label=multi_label, **split)
        states = [each.work for each in (place, last) if isinstance(each, Destination)]
        if resume and states and not any(map(has_checkpoint, states)):
            output.note(f"There is no interrupted run of {out} to go on with; this one is new.")
        asked: dict[str, object] = {"gates": gates, "norm": norm, "start": start, "seed": seed}
        asked |= {"shift": shift, "dtype": dtype, "gate_rate": gate_rate, "head_rate": head_rate}
        adapter = find_begun(place, last, resume=resume, asked=asked)
        check_structure(
            backbone,
            gates=form.gates,
            norm=form.norm,
            start=form.start,
            shift=form.shift,
            input_size=input_size,
            gradient_checkpointing=gradient_checkpointing,
        )
        loaded = load_backbone(backbone, weights=weights).to(ours)
        if origin is not None:
            origin.check_backbone(loaded)
        preprocessing = adjust_images(
            loaded.preprocessing if origin is None else origin.adapter.preprocessing,
            input_size=input_size,
            rules=rules,
        )
        images = decode_data(output, listing, skip_bad=skip_bad, preprocessing=preprocessing)
        show_classes(output, images)
        labels = images.labels
        if origin is not None:
            describe_origin(output, origin, images)
            labels = origin.extend_labels(labels)
        if isinstance(place, Path):
            find_rate(
                output,
                place,
                loaded,
                images,
                task=task,
                recipe=recipe,
                gates=gates,
                norm=norm,
                start=start,
                shift=shift,
                preprocessing=preprocessing,
                init_from=origin,
                workers=choose_workers(workers, images.train),
            )
            return
        output.note(
            f"Training '{task}' on {loaded.identity.name}: {len(labels)} "
            f"{'labels' if multi_label else 'classes'}, {len(images.train)} images to train on, "
            f"{len(images.val)} to validate on."
        )
        run_method(
            output,
            chosen,
            loaded,
            images,
            place,
            last=last,
            adapter=adapter,
            asked=search,
            out=out,
            name=backbone,
            weights=weights,
            team=team,
            form=form,
            origin=origin,
            begun_as=begun_as,
            dtype=dtype,
            log_to=log_to,
            task=task,
            recipe=recipe,
            preprocessing=preprocessing,
            workers=choose_workers(workers, images.train),
            guide=asked_guide.load(seed=seed, device=ours),
            resume=resume,
            force=force,
            decoded_bytes=decoded_bytes,
        )
    if (how := show_folder(out, chosen.method if then is None else then.value)) is not None:
        output.note(how)
