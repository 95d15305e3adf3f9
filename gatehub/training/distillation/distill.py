"""From a fine-tuned network to an adapter of its backbone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gatehub._arguments import checked
from gatehub._text import quote
from gatehub.adapter import Adapter
from gatehub.adapter.files import check_dtype
from gatehub.backbone import Backbone, digest_tensors
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.errors import AdapterExistsError, TrainingError
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import check_backbone
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import seed_everything
from gatehub.training.destination import check_replaceable
from gatehub.training.distillation.images import AnsweredImages, check_outside, read_images
from gatehub.training.distillation.likeness import Likeness
from gatehub.training.distillation.projection import Fit, project
from gatehub.training.distillation.settings import Distillation
from gatehub.training.distillation.stages import LEAST_SQUARES, Climb, Progress, Stage, climb
from gatehub.training.economy.precision import check_backbone_precision
from gatehub.training.methods.trained_network import TrainedNetwork, read_network
from gatehub.training.preflight import check_storable
from gatehub.training.report import draw_gate_map
from gatehub.training.sources import Given, list_given


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillReport:
    """How near an adapter came to a fine-tuned network.

    Args:
        task: its name.
        folder: where it was saved.
        adapter: as it was saved.
        fit: of least squares.
        stages: what was measured, in their order; none without images.
        kept: the name of the stage that was saved.
        images: how many were held out, and measured on.
        network_accuracy: of the network on those, a fraction; None where no labels are known.
        adapter_bytes: size of gates.safetensors.
        checkpoint_bytes: size of the network's file.
        seconds: wall-clock time.
    """

    task: str
    folder: Path
    adapter: Adapter
    fit: Fit
    stages: tuple[Stage, ...]
    kept: str
    images: int
    network_accuracy: float | None
    adapter_bytes: int
    checkpoint_bytes: int
    seconds: float

    @property
    def likeness(self) -> Likeness | None:
        """Of the stage that was saved; None where nothing was measured."""
        return next((s.likeness for s in self.stages if s.name == self.kept), None)


@checked(TrainingError, but=("data",))
@set_host_aside()
def distill_to_gates(
    backbone: Backbone,
    checkpoint: str | Path | TrainedNetwork,
    out: str | Path,
    *,
    data: Given | AnsweredImages | None = None,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    settings: Distillation | None = None,
    gates: str = "auto",
    norm: str = "affine",
    start: str | None = None,
    dtype: str = "float16",
    force: bool = False,
    columns: Mapping[str, str] | None = None,
    skip_bad: bool = False,
    workers: int = 0,
    progress: Progress | None = None,
    show: Callable[[AnsweredImages], None] | None = None,
) -> DistillReport:
    """Make an adapter of a network that was fine-tuned from a backbone, and save it.

    Gates by least squares for each filter; then statistics of batch norms measured again; then a
    short training against the network's own answers. The stage is kept that is most like it on
    images that none of them has seen.

    Args:
        backbone: what the network was fine-tuned from; it stays as it is.
        checkpoint: a safetensors file, a folder as timm's `save_for_hf` and
            `gatehub train --method finetune` write it; or what `read_network` has read of one.
        out: the adapter's folder.
        data: images, which need no labels: a folder of them, or a form that
            `gatehub.training.sources` reads. None for least squares alone, which is not measured.
        task: its name; None for the network's, or that of its folder or file.
        labels: class names, in the order of the logits; None for those that it names.
        settings: see `Distillation`; None for the defaults.
        gates: see `attach_gates`.
        norm: see `attach_gates`. With "affine" what its running statistics have become is in the
            weights and biases.
        start: see `attach_gates`; what was fine-tuned before it is lost.
        dtype: how gates are stored; see `Adapter.save`.
        force: replace the adapter that is at `out`.
        columns: of a table of images; see `load_data`.
        skip_bad: leave unreadable images out.
        workers: processes that decode images beside this one.
        progress: called with what is done, how much of it is, and of how much.
        show: is told of the images, once they are read.

    Raises:
        PoorFitError: it answers otherwise than the network for more than `max_drop` of the images.
        AdapterExistsError: something is at `out`.
        TrainingError: the checkpoint is of another architecture, or names no labels.
        DataError: the images cannot be read, or are too few.
        GatehubError: a bad name, kind, mode or stage.
    """
    began = time.monotonic()
    settings = settings or Distillation()
    check_dtype(dtype)
    check_backbone_precision(backbone, "float32")
    network = (
        checkpoint
        if isinstance(checkpoint, TrainedNetwork)
        else read_network(checkpoint, labels=labels, task=task)
    )
    folder = Path(out)
    _check_place(folder, network, data, force=force)
    teacher = network.build_on(backbone).to(next(backbone.parameters()).device)
    preprocessing = network.preprocess(backbone.preprocessing)
    seed_everything(settings.seed)
    model = attach_gates(backbone, labels=network.labels, gates=gates, norm=norm, start=start)
    model.preprocessing = preprocessing
    for net in (model, teacher):
        arrange_kernels(net)
    recorded: dict[str, str | int | float | bool | None] = {
        "method": "distill-to-gates",
        "distilled_from": network.place,
        "distilled_digest": digest_tensors(teacher.state_dict()),
        "gates": gates,
        "norm": norm,
    }
    make = partial(_make, model, network, recorded, dtype)
    check_storable(make())
    check_backbone(backbone, make())
    fit = project(model, backbone, teacher)
    climbed = Climb(adapter=make(), kept=LEAST_SQUARES, stages=(), network_accuracy=None)
    images: AnsweredImages | None = None
    if isinstance(data, AnsweredImages):
        images = data
    elif data is not None:
        images = read_images(
            network,
            data,
            preprocessing=preprocessing,
            seed=settings.seed,
            held_out=settings.held_out,
            columns=columns,
            skip_bad=skip_bad,
            progress=None if progress is None else partial(progress, "checking images"),
        )
    if images is not None:
        if show is not None:
            show(images)
        recorded |= {
            "distilled_on": images.source,
            "distilled_count": len(images.train),
            "distilled_held_out": len(images.held_out),
            "distilled_steps": settings.steps,
            "distilled_seed": settings.seed,
        }
        climbed = climb(
            model,
            teacher,
            images,
            settings,
            make=make,
            backbone=backbone,
            problem=network.problem,
            workers=workers,
            progress=progress,
        )
        climbed.check(network.task, max_drop=settings.max_drop)
    stored = climbed.adapter.with_probe(backbone, dtype=dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_place(folder, network, None, force=force)  # minutes later
    stored.save(folder, dtype=dtype, attachments=draw_gate_map(stored))
    return DistillReport(
        task=network.task,
        folder=folder,
        adapter=stored,
        fit=fit,
        stages=climbed.stages,
        kept=climbed.kept,
        images=0 if images is None else len(images.held_out),
        network_accuracy=climbed.network_accuracy,
        adapter_bytes=(folder / "gates.safetensors").stat().st_size,
        checkpoint_bytes=network.file.stat().st_size,
        seconds=time.monotonic() - began,
    )


def _make(
    model: GatedModel,
    network: TrainedNetwork,
    recorded: Mapping[str, str | int | float | bool | None],
    dtype: str,
) -> Adapter:
    """Return the adapter that a model is at this moment, as it would be stored."""
    made = Adapter.from_model(
        model, task=network.task, training=recorded, thresholds=network.problem.thresholds
    )
    return made.as_stored(dtype)


def _check_place(
    folder: Path, network: TrainedNetwork, data: Given | AnsweredImages | None, *, force: bool
) -> None:
    """Refuse a place where something would be lost: an adapter, too, unless that is asked for."""
    check_replaceable(folder, task=network.task, force=force)
    if not force and os.path.isdir(folder) and os.listdir(folder):
        raise AdapterExistsError(
            f"{quote(str(folder))} holds an adapter of task '{network.task}' already; it is left "
            "as it is.",
            hint="Add --force (force=True) to replace it, or choose another folder.",
        )
    if data is not None and not isinstance(data, AnsweredImages):
        for source in list_given(data):
            check_outside(folder, source)
