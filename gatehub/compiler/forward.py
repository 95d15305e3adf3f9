"""One pass of a network, recorded: the operators that ran, and the tensors that they met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gatehub._text import first_line
from gatehub.compiler.tracing import Operation, Recorder, named_tensors
from gatehub.errors import ExecutionError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """One recorded pass. It keeps every tensor alive, so that an id names one of them only.

    Args:
        operations: in the order in which they ran.
        images: the very tensor that the network was given; it may have been changed.
        answer: (B, labels), the logits.
        weights: parameters and buffers, by name.
        names: of each of them, by id; of several names the first.
    """

    operations: Sequence[Operation]
    images: Tensor
    answer: Tensor
    weights: Mapping[str, Tensor]
    names: Mapping[int, str]


def draw_noise(
    count: int,
    size: tuple[int, int, int],
    *,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> Tensor:
    """Return images of noise: (count, C, H, W), of mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *size, generator=generator).to(device=device, dtype=dtype)
    return images.contiguous(memory_format=memory_format)


def record_pass(model: nn.Module, images: Tensor, *, labels: int) -> Pass:
    """Run a network, and record what it runs; see `run_network`."""
    recorder = Recorder()
    answer = run_network(model, images, labels=labels, within=recorder)
    names: dict[int, str] = {}
    for name, tensor in named_tensors(model):
        names.setdefault(id(tensor), name)
    return Pass(
        operations=recorder.operations,
        images=images,
        answer=answer,
        weights=dict(named_tensors(model)),
        names=names,
    )


def run_network(
    model: nn.Module,
    images: Tensor,
    *,
    labels: int,
    within: AbstractContextManager[object] | None = None,
) -> Tensor:
    """Run a network.

    Args:
        model: frozen, in evaluation mode.
        images: (B, C, H, W); the network may change them.
        labels: number of classes.
        within: what to run it in.

    Returns:
        (B, labels).

    Raises:
        ExecutionError: it does not run on these images, or answers something else.
    """
    name = type(model).__name__
    try:
        # In inference mode operators arrive whole, so that they run again just as they ran here.
        with torch.inference_mode(), within or nullcontext():
            answer: Tensor = model(images)
    # A network is anybody's code, so it can fail in any way.
    except Exception as error:
        raise ExecutionError(
            f"{name} does not run on images {tuple(images.shape)} of {images.dtype}: "
            f"{first_line(error)}.",
            hint="Use another dtype or image size, or serve its tasks as folded models "
            "(gatehub.fold).",
        ) from error
    shape = getattr(answer, "shape", None)  # a network may answer anything, whatever it says
    if shape != (len(images), labels):
        found = type(answer).__name__ if shape is None else tuple(shape)
        raise ExecutionError(
            f"{name} answers {found} to {len(images)} images and {labels} labels; expected one "
            f"tensor ({len(images)}, {labels})."
        )
    return answer
