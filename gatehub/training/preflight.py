"""What can be said against a training run before anything of it costs time.

A run that fails fails early: its arguments are looked at first, then its paths, then the list of
its images, then the backbone's structure. Only then are weights read and images decoded.
"""

from __future__ import annotations

import torch

from gatehub.adapter import Adapter, AdapterConfig
from gatehub.adapter.files import check_dtype
from gatehub.adapter.names import check_task_name
from gatehub.backbone import build_structure
from gatehub.backbone.classifier import split_classifier
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import SiteError, TrainingError
from gatehub.gates.layout import add_shifts, check_norm, plan_gates
from gatehub.gates.policy import read_policy
from gatehub.training.economy.recomputing import recompute_blocks


def check_settings(
    *,
    task: str,
    gates: str | None,
    norm: str | None,
    start: str | None,
    dtype: str,
    batch_size: int,
    workers: int = 0,
    decoded_bytes: int = 0,
    gradient_checkpointing: bool = False,
) -> None:
    """Refuse what no backbone and no data could make right; see `train_adapter` and `Recipe`.

    Raises:
        GatehubError: a bad name, kind, mode, stage, dtype or number of workers.
    """
    texts = {"task": task, "dtype": dtype}
    texts |= {
        name: value
        for name, value in (("gates", gates), ("norm", norm), ("start", start))
        if value is not None
    }
    for name, value in texts.items():
        if not isinstance(value, str):
            raise TrainingError(f"{name} is {value!r:.100}; expected a string.")
    check_task_name(task)
    if gates is not None:
        read_policy(gates)
    if norm is not None:
        check_norm(norm)
    if norm == "stats" and batch_size == 1:
        raise TrainingError(
            "With norm 'stats', layers are normalised by the statistics of each batch, and the "
            "batch size is 1; expected 2 or more.",
            hint="Take larger batches (batch_size), or norm 'affine'.",
        )
    if norm == "stats" and gradient_checkpointing:
        raise TrainingError(
            "With norm 'stats', running statistics follow the batches, and gradient checkpointing "
            "would count each batch twice.",
            hint="Leave one of them out.",
        )
    if start == "":
        raise SiteError("The first gated stage is ''; expected a stage's name, such as 'layer3'.")
    check_dtype(dtype)
    for name, count in {"workers": workers, "decoded_bytes": decoded_bytes}.items():
        if type(count) is not int or count < 0:
            raise TrainingError(f"{name} is {count!r:.100}; expected 0 or more, a whole number.")


def check_structure(
    backbone: str,
    *,
    gates: str,
    norm: str,
    start: str | None,
    shift: bool = False,
    input_size: int | None = None,
    gradient_checkpointing: bool = False,
) -> None:
    """Refuse gates that a backbone has no place for, by its structure: no weights are read.

    Args:
        backbone: as for `load_backbone`.
        gates: see `attach_gates`.
        norm: see `attach_gates`.
        start: see `attach_gates`.
        shift: see `attach_gates`.
        input_size: height and width of the images, in pixels; None for the backbone's own.
        gradient_checkpointing: see `Recipe`.

    Raises:
        BackboneError: there is no such backbone, or it has no classifier.
        GateError: no such stage, a layer that cannot be gated, or none that a shift adds to.
        TrainingError: it does not take images of that size, or offers no checkpointing.
    """
    model = build_structure(backbone)
    if input_size is not None:
        try:
            model(torch.empty(1, 3, input_size, input_size, device="meta"))
        except Exception as error:  # whatever a layer of somebody's network asserts
            raise TrainingError(
                f"{backbone} does not take images of {input_size} x {input_size} pixels: {error}",
                hint="Leave input_size out for the size that it was trained on.",
            ) from error
    if gradient_checkpointing:
        recompute_blocks(model)
    heads, _ = split_classifier(model)
    layout = plan_gates(model, exclude=heads, gates=gates, norm=norm, start=start)
    if shift:
        add_shifts(model, layout, input_size=Preprocessing.from_model(model).input_size)


def check_storable(adapter: Adapter) -> None:
    """Refuse an adapter whose description could not be stored and read again.

    Called with what is known before training: labels and settings come from strangers' files.

    Raises:
        ConfigError: a label or a setting that the format does not allow.
    """
    AdapterConfig.from_json(adapter.config.to_json(), where=f"The config of '{adapter.task}'")
