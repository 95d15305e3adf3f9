"""gatehub distill-to-gates: adapters of networks that were fine-tuned from one backbone.

gatehub distill-to-gates birds-finetuned --backbone resnet18.a1_in1k --data photos/ --out birds
gatehub distill-to-gates checkpoints/* --backbone resnet18.a1_in1k --data photos/ --out adapters
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from gatehub.cli._data import describe_reading, name_skipped
from gatehub.cli._errors import reports_errors, spell_options
from gatehub.cli._options import (
    BACKBONE_HELP,
    ColumnsOption,
    DeviceOption,
    SkipBadOption,
    WeightsOption,
    WorkersOption,
)
from gatehub.cli._output import (
    Format,
    FormatOption,
    Output,
    format_bytes,
    format_percent,
    make_table,
)
from gatehub.training import defaults

if TYPE_CHECKING:
    from gatehub.errors import GatehubError
    from gatehub.training.distillation import DistillReport
    from gatehub.training.distillation.images import AnsweredImages
    from gatehub.training.distillation.stages import Stage


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        "distill-to-gates",
        epilog="Example: gatehub train --backbone demo --data sklearn:digits --task digits "
        "--method finetune --out finetuned; gatehub distill-to-gates finetuned --backbone demo "
        "--data sklearn:digits --out digits",
    )(distill)


@reports_errors
def distill(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT...",
            help="Folders as timm's save_for_hf and train --method finetune write them "
            "(config.json, model.safetensors), .safetensors files with timm's names of tensors, or "
            "hf-hub:ORG/NAME.",
        ),
    ],
    backbone: Annotated[
        str,
        typer.Option("--backbone", help=f"What they were fine-tuned from: {BACKBONE_HELP}"),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="The adapter's folder; of several checkpoints the folder of theirs, DIR/TASK.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="IMAGES",
            help="Images such as the tasks see, without labels: a folder of them, or whatever "
            "train reads. Where they have the checkpoint's labels, accuracies are told. Without "
            "any, gates are fitted to the weights alone, and nothing is measured.",
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            "--max-drop",
            metavar="SHARE",
            help="Refuse an adapter that answers more of the held-out images otherwise than its "
            "checkpoint, as a fraction: five points are 0.05.",
        ),
    ] = defaults.DISTILL_MAX_DROP,
    weights: WeightsOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Names of the logits, one a line in their order. \\[default: label_names of the "
            "checkpoint's config.json]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option("--task", help="Its name. \\[default: the checkpoint's, or its folder's]"),
    ] = None,
    gates: Annotated[
        str, typer.Option("--gates", help="auto, full, lowrank:R, scale or none; see train.")
    ] = "auto",
    norm: Annotated[
        str, typer.Option("--norm", help="frozen, affine or stats; see train.")
    ] = "affine",
    start: Annotated[
        str | None, typer.Option("--start", help="First gated stage; see train.")
    ] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Gates are stored so; see gatehub compress.")
    ] = "float16",
    steps: Annotated[
        int,
        typer.Option("--steps", min=0, help="Of the training against the checkpoint's answers."),
    ] = defaults.DISTILL_STEPS,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Images in each.")
    ] = defaults.BATCH_SIZE,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Decides what is held out, and all that is drawn.")
    ] = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace adapters that are there.")
    ] = False,
    columns: ColumnsOption = None,
    skip_bad: SkipBadOption = False,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
    format: FormatOption = Format.human,
) -> None:
    """Make adapters of checkpoints that were fine-tuned from a backbone.

    Gates by least squares for each filter; then the statistics of batch norms measured again; then
    a short training against the checkpoint's own answers to images, which need no labels. Each of
    the three is compared with the checkpoint on images that were held out, and the best is kept.
    One checkpoint that fails stops no other; the exit status is 1 then.
    """
    from gatehub.backbone import load_backbone
    from gatehub.backbone.device import find_device
    from gatehub.errors import GatehubError, PoorFitError, TrainingError
    from gatehub.training.distillation import Distillation, distill_to_gates, read_network
    from gatehub.training.methods.network_files import read_label_file

    output = Output(format)
    several = len(checkpoints) > 1
    if several and task is not None:
        raise typer.BadParameter("--task names one adapter, and several checkpoints are given.")
    settings = Distillation(steps=steps, batch_size=batch_size, max_drop=max_drop, seed=seed)
    named = None if labels is None else read_label_file(labels)
    loaded = load_backbone(backbone, weights=weights).to(find_device(device))
    reports: list[tuple[str, DistillReport]] = []
    failures: list[tuple[str, GatehubError]] = []

    def show(images: AnsweredImages) -> None:
        describe_reading(output, images.notes, images.left_out)
        name_skipped(output, images.skipped)
        output.note(
            f"{len(images.train)} images to learn from, {len(images.held_out)} held out to measure "
            f"on{'' if images.labelled else '; without labels'}."
        )

    for place in checkpoints:
        try:
            network = read_network(place, labels=named, task=task)
            if any(report.task == network.task for _, report in reports):
                raise TrainingError(
                    f"Two of the checkpoints are of a task named '{network.task}'; '{place}' is "
                    "the second.",
                    hint="Distil it by itself, under another name (--task).",
                )
            output.note(f"{network.task}: fitting gates to '{place}'.")
            with output.progress(network.task) as advance:
                report = distill_to_gates(
                    loaded,
                    network,
                    out / network.task if several else out,
                    data=data,
                    settings=settings,
                    gates=gates,
                    norm=norm,
                    start=start,
                    dtype=dtype,
                    force=force,
                    columns=columns,
                    skip_bad=skip_bad,
                    workers=workers or 0,
                    progress=lambda _, done, total: advance(done, total),
                    show=show,
                )
        except GatehubError as error:
            if isinstance(error, PoorFitError):
                output.note(_tabulate([(place, cast("Sequence[Stage]", error.stages), None, None)]))
            if not several:
                raise
            failures.append((place, error))
            output.note(f"Left out, {place}: {spell_options(error.message, distill)}")
            if error.hint:
                output.note(f"Hint: {spell_options(error.hint, distill)}")
            continue
        reports.append((place, report))
    _show(output, reports, failures)
    if failures:
        raise TrainingError(
            f"{len(failures)} of the {len(checkpoints)} checkpoints became no adapters.",
            hint="See what is said of each above; the others are saved.",
        )


Row = tuple[str, "Sequence[Stage]", str | None, float | None]


def _show(
    output: Output,
    reports: Sequence[tuple[str, DistillReport]],
    failures: Sequence[tuple[str, GatehubError]],
) -> None:
    rows: list[Row] = [
        (report.task, report.stages, report.kept, report.network_accuracy) for _, report in reports
    ]
    human: list[Any] = []
    if any(stages for _, stages, _, _ in rows):
        human += [_tabulate(rows), ""]
    for _, report in reports:
        if left := report.fit.left:
            output.note(
                f"{report.task}: {len(left)} tensors have changed that no value of an adapter "
                f"stands for, such as '{left[0]}'; they stay the backbone's."
            )
        size = f"{format_bytes(report.adapter_bytes)}, where the checkpoint has "
        size += format_bytes(report.checkpoint_bytes)
        found = report.likeness
        like = (
            "not measured: no images were given (--data)"
            if found is None
            else f"{format_percent(found.agreement)} of {report.images} held-out images answered "
            "as by the checkpoint"
        )
        human.append(f"{report.folder}: {size}; {like}.")
    output.result(
        {
            "adapters": [_describe(place, report) for place, report in reports],
            "failures": [
                {"checkpoint": place, "error": error.message, "hint": error.hint}
                for place, error in failures
            ],
        },
        human=human,
        quiet="\n".join(str(report.folder) for _, report in reports),
    )


def _describe(place: str, report: DistillReport) -> dict[str, Any]:
    found = report.likeness
    return {
        "task": report.task,
        "checkpoint": place,
        "path": str(report.folder),
        "adapter_bytes": report.adapter_bytes,
        "checkpoint_bytes": report.checkpoint_bytes,
        "explained": report.fit.explained,
        "images": report.images,
        "kept": report.kept,
        "agreement": None if found is None else found.agreement,
        "accuracy": None if found is None else found.accuracy,
        "checkpoint_accuracy": report.network_accuracy,
        "stages": [{"stage": stage.name, **asdict(stage.likeness)} for stage in report.stages],
        "seconds": report.seconds,
    }


def _tabulate(reports: Sequence[Row]) -> Any:
    rows = []
    for task, stages, kept, accuracy in reports:
        for stage in stages:
            found = stage.likeness
            rows.append(
                (
                    task,
                    f"{stage.name} (kept)" if stage.name == kept else stage.name,
                    format_percent(found.agreement),
                    f"{found.divergence:.4f}",
                    f"{found.logit_difference:.3f}",
                    "" if found.accuracy is None else format_percent(found.accuracy),
                )
            )
        if accuracy is not None:
            rows.append((task, "the checkpoint", "", "", "", format_percent(accuracy)))
    heads = ("task", "stage", "same answer", "KL, nats", "logits differ by", "right")
    return make_table(heads, rows, left=2)
