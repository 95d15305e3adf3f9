"""The methods that benchmarks.transfer compares, each as gatehub trains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from gatehub.adapter import Adapter
from gatehub.adapter.arithmetic import Compression
from gatehub.backbone import Backbone, load_backbone
from gatehub.backbone.classifier import is_inside
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.gates.fold import fold
from gatehub.training.data import ImageData
from gatehub.training.methods.network import copy_weights, describe_network, draw_network
from gatehub.training.methods.train_network import train_network
from gatehub.training.recipe import Recipe
from gatehub.training.report import Report
from gatehub.training.train import train_adapter

GATES, THEN = "gates", "gates, then finetune"
# Arguments of `train_adapter`.
_ADAPTERS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"gates": "none", "norm": "frozen", "epochs": 0},
    "norm": {"gates": "none"},
    "scale": {"gates": "scale"},
    GATES: {},
    "gates, full": {"gates": "full"},
}
_NETWORKS = ("lora", "finetune", THEN)
METHODS = (*_ADAPTERS, *_NETWORKS)
_SMALLER = ("int8", "int4", "sign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a method made of a task.

    Args:
        net: answers with logits.
        adapter: where it is one.
        val_accuracy: on the validation images, a fraction.
        start_accuracy: of the linear probe, likewise.
        parameters: numbers learned.
        bytes: of the file of tensors.
        epochs: that were trained.
        kept_epoch: of them; 0 is the start.
    """

    net: nn.Module
    adapter: Adapter | None
    val_accuracy: float
    start_accuracy: float
    parameters: int
    bytes: int
    epochs: int
    kept_epoch: int


def train_method(
    method: str,
    backbone: Backbone,
    data: ImageData,
    *,
    preprocessing: Preprocessing,
    seed: int,
    place: Path,
) -> Made:
    """Train with the defaults; an interrupted run goes on.

    Args:
        method: of `METHODS`.
        backbone: stays as it is.
        data: training and validation images.
        preprocessing: with the image size.
        seed: of the run.
        place: a folder for what is made.
    """
    out = place / method.replace(", ", "-").replace(" ", "-")
    options: dict[str, Any] = {"task": "task", "preprocessing": preprocessing, "resume": True}
    if method in _ADAPTERS:
        given = dict(_ADAPTERS[method])
        recipe = Recipe(seed=seed, epochs=given.pop("epochs", None))
        report = train_adapter(backbone, data, out, recipe=recipe, **given, **options)
        return _describe(report, fold(backbone, report.adapter), report.adapter)
    if method == THEN:
        options["init_from"] = place / GATES
        options.pop("preprocessing")
    name = "finetune" if method == THEN else method
    network = train_network(backbone, data, out, method=name, recipe=Recipe(seed=seed), **options)
    return _describe(network, _read_network(backbone, data, out, name, preprocessing), None)


def _describe(report: Report, net: nn.Module, adapter: Adapter | None) -> Made:
    return Made(
        net=net.eval(),
        adapter=adapter,
        val_accuracy=report.accuracy,
        start_accuracy=report.start_accuracy,
        parameters=report.trained_parameters,
        bytes=report.adapter_bytes,
        epochs=report.epochs,
        kept_epoch=report.kept_epoch,
    )


def _read_network(
    backbone: Backbone, data: ImageData, folder: Path, method: str, preprocessing: Preprocessing
) -> nn.Module:
    """Read what a method left as timm and PEFT read it."""
    if method != "lora":
        return load_backbone(folder).model
    from peft import PeftModel

    net = draw_network(backbone, describe_network(backbone, data.labels, preprocessing), seed=0)
    theirs = backbone.model.state_dict()
    copy_weights(
        backbone, net, {n: t for n, t in theirs.items() if not is_inside(n, backbone.heads)}
    )
    return PeftModel.from_pretrained(net, str(folder))


def store_smaller(method: str, made: Made, backbone: Backbone) -> dict[str, Made]:
    """Return the adapter of `GATES` in smaller number formats, with the values that they hold."""
    if method != GATES or made.adapter is None:
        return {}
    smaller = {}
    for dtype in _SMALLER:
        compression = Compression(dtype=dtype)
        adapter = compression.apply(made.adapter)
        smaller[f"{method}, {dtype}"] = replace(
            made,
            net=fold(backbone, adapter).eval(),
            adapter=adapter,
            bytes=compression.count_bytes(adapter),
        )
    return smaller
