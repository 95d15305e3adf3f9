"""One network of timm under gates: gated, folded, merged, saved and loaded, and what it costs."""

from __future__ import annotations

import functools
import tempfile
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import CondConv2d
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from benchmarks.coverage_draws import draw_task, draw_vectors, find_images
from gatehub.adapter import Adapter
from gatehub.backbone import Backbone, build_structure
from gatehub.backbone.classifier import is_inside, replace_classifier, split_classifier
from gatehub.backbone.structure import copy_structure
from gatehub.compiler.tracing import trace_forward
from gatehub.errors import ExecutionError, GatehubError, UngatedLayerWarning
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.cost import measure_backbone
from gatehub.gates.fold import fold
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.execution.execution import Execution

TOLERANCE = 1e-4
LABELS = tuple(f"class {number}" for number in range(10))


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimits:
    """How many parameters a network may have to be run; four copies of one are in memory.

    Args:
        convolutional: for networks in which convolutions hold half of the parameters.
        other: for all others, where gates reach few weights.
    """

    convolutional: int = 1_000_000_000
    other: int = 100_000_000


def check_name(name: str, *, limits: SizeLimits) -> dict[str, Any]:
    """Check one name, and say how it went.

    Args:
        name: timm's name, without a tag.
        limits: networks beyond them are only counted.

    Returns:
        "status" is "passed", "failed", "refused" (gatehub says why it does not take the network)
        or "too large"; "reason" says why. The other keys are figures.
    """
    began = time.monotonic()
    result: dict[str, Any] = {"name": name, "status": "passed", "reason": None}
    try:
        result |= _measure(name)
        values = result["values"] + result["classifier_values"]
        if result["status"] == "refused":
            pass
        elif values > (limits.convolutional if result["conv_share"] >= 0.5 else limits.other):
            result |= {"status": "too large", "reason": f"{values:,} parameters"}
        else:
            result |= _compare(name, torch.float32)
            if _find_fault(result) is not None:
                result |= _compare(name, torch.float64)
            if (fault := _find_fault(result)) is not None:
                result |= {"status": "failed", "reason": fault}
    except GatehubError as error:
        result |= {"status": "refused", "reason": f"{type(error).__name__}: {error.message}"}
    except Exception as error:  # a sweep goes on, and reports what broke
        first = (str(error).splitlines() or [""])[0]
        result |= {"status": "failed", "reason": f"{type(error).__name__}: {first[:200]}"}
    return result | {"seconds": round(time.monotonic() - began, 2)}


@functools.cache
def find_families() -> dict[str, list[str]]:
    """Return the names in which convolutions hold half of the parameters, smallest first, by
    family (the module of timm.models that defines them)."""
    families: dict[str, list[tuple[int, str]]] = {}
    for name in timm.list_models():
        with torch.device("meta"):
            model = timm.create_model(name)
        values = sum(p.numel() for p in model.parameters())
        if _count_convolutions(model) >= values / 2:
            families.setdefault(_family(model), []).append((values, name))
    return {family: [name for _, name in sorted(families[family])] for family in sorted(families)}


def _measure(name: str) -> dict[str, Any]:
    """Count on the meta device."""
    model = build_structure(name)
    figures: dict[str, Any] = {
        "family": _family(model),
        "conv_share": _count_convolutions(model) / sum(p.numel() for p in model.parameters()),
        "values": sum(p.numel() for p in model.parameters()),
        "classifier_values": 0,
    }
    try:
        heads, _ = split_classifier(model)
        size = measure_backbone(model, heads=heads)
    except GatehubError as error:
        return figures | {"status": "refused", "reason": f"{type(error).__name__}: {error.message}"}
    linear = [site for site in size.sites if type(model.get_submodule(site.name)) is nn.Linear]
    return figures | {
        "values": size.values,
        "classifier_values": size.classifier_values,
        "heads": list(heads),
        "sites": len(size.sites),
        "linear_share": sum(site.kernel_values for site in linear) / size.values,
        "ungated": [str(ungated) for ungated in size.ungated],
        "shares": {policy: task.values / size.values for policy, task in size.tasks.items()},
        "byte_shares": {
            policy: task.bytes / size.checkpoint_bytes for policy, task in size.tasks.items()
        },
    }


def _compare(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Run the network in six ways, and return how far apart the answers are."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=len(LABELS)).to(dtype).eval()
    draw_vectors(model)
    images = find_images(model, dtype)
    backbone = Backbone(model)
    # The engine records on images as small as the others.
    size = (images.shape[1], images.shape[2], images.shape[3])
    backbone.preprocessing = replace(backbone.preprocessing, input_size=size)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UngatedLayerWarning)
        gated = attach_gates(backbone, labels=LABELS, norm="stats")
        plain = _take_classifier(gated, backbone)
        start = _relative(gated(images), plain(images))
        draw_task(gated, images)
        expected = gated(images)
        adapter = Adapter.from_model(gated, task="coverage")
        with tempfile.TemporaryDirectory() as folder:
            path = adapter.save(Path(folder) / "adapter", dtype="float16")
            loaded = Adapter.load(path)
            file_bytes = sum(file.stat().st_size for file in path.glob("*.safetensors"))
        lost = [
            tensor_name
            for tensor_name, tensor in adapter.tensors.items()
            if not torch.equal(tensor.float(), loaded.tensors[tensor_name])
        ]
        object_error = _relative(fold(backbone, adapter)(images), expected)
        del gated, adapter
        folded = fold(backbone, loaded)
        fold_error = _relative(folded(images), expected)
        share = _gated_share(folded, backbone, loaded)
        before = _count_batch_norms(folded)
        del folded
        merged = fold(backbone, loaded, merge_norm=True)
        merge_error = _relative(merged(images), expected)
        left = _count_batch_norms(merged)
        del merged
    figures = {
        "dtype": str(dtype).removeprefix("torch."),
        "input": list(images.shape[1:]),
        "magnitude": expected.abs().max().item(),
        "spread": _relative(expected[:1], expected[1:2]),
        "start_error": start,
        "fold_error": max(fold_error, object_error),
        "merge_error": merge_error,
        "engine_error": None,
        "engine_refusal": None,
        "lost_tensors": lost,
        "gated_share": share,
        "norms": before,
        "norms_left": left,
        "adapter_bytes": file_bytes,
    }
    if _find_fault(figures) is None:  # where it does not, it is all tried again in float64
        figures |= _run_engine(backbone, loaded, images, expected)
    return figures


def _find_fault(result: dict[str, Any]) -> str | None:
    """Say why a network does not pass: answers that differ, or that would agree whatever it did.

    Two images are told apart by more than the tolerance, or by a hundred times what differs:
    random weights make some networks nearly blind to their input.
    """
    errors = [result[f"{way}_error"] for way in ("start", "fold", "merge", "engine")]
    found = [error for error in errors if error is not None]
    if not all(error <= TOLERANCE for error in found):  # NaN is not
        return "answers that differ"
    if result["lost_tensors"]:
        return "tensors that were lost"
    if not result["spread"] > min(TOLERANCE, 100 * max(found)):
        return "answers that do not depend on the image"
    return None


def _run_engine(
    backbone: Backbone, adapter: Adapter, images: Tensor, expected: Tensor
) -> dict[str, Any]:
    """Hold the engine's weights, in its program, against the gated model's answers.

    Returns:
        How far they are apart; or why the engine does not take the network.
    """
    merged = MergedBackbone(backbone)
    execution = Execution(merged, images.dtype)
    try:
        answer = execution.run(execution.fold(adapter, merged.plan_task(adapter)), images)
    except ExecutionError as error:
        return {"engine_refusal": error.message}
    return {"engine_error": _relative(answer, expected)}


def _take_classifier(gated: GatedModel, backbone: Backbone) -> nn.Module:
    """Give a task the backbone's own classifier, and return what must answer as it does at first.

    That is the backbone itself, or, where timm leaves a distilled classifier out of a new one, the
    backbone as timm makes it for a new task.
    """
    theirs, own = backbone.model.state_dict(), gated.net.state_dict()
    heads = {name for name in own if is_inside(name, backbone.heads)}
    for name in heads:
        own[name].copy_(theirs[name])
    if heads == {name for name in theirs if is_inside(name, backbone.heads)}:
        return backbone
    plain = copy_structure(backbone.model)
    replace_classifier(plain, len(LABELS))
    plain.load_state_dict({name: theirs[name] for name in plain.state_dict()})
    return plain.eval()


def _gated_share(folded: nn.Module, backbone: Backbone, adapter: Adapter) -> float:
    """Which share of the learned kernels that really convolve carries a gate."""
    trace = trace_forward(folded, backbone.preprocessing.input_size)
    sites = {f"{site}.weight" for site in adapter.layout.sites}
    every, gated = {}, {}
    for operation in trace.operations:
        if operation.name == "aten.convolution":
            kernel = operation.arguments[1]
            # A layer that stands in several places has a name for each of them.
            names = trace.names.get(id(kernel), ())
            if any(
                name.endswith("weight") and not is_inside(name, backbone.heads) for name in names
            ):
                every[id(kernel)] = kernel.numel()
                gated[id(kernel)] = kernel.numel() if sites.intersection(names) else 0
    return sum(gated.values()) / sum(every.values())


def _count_convolutions(model: nn.Module) -> int:
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, _ConvNd | CondConv2d)
    )


def _count_batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def _family(model: nn.Module) -> str:
    return type(model).__module__.rpartition(".")[2]


def _relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest expected magnitude; infinite if not finite."""
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    return error if error == error else float("inf")
