"""The whole way of a network to functions of its weights:

record → unify shapes → verify → lower                  `record`: what a task runs alone
                               → partition → lower      `split`: what tasks share, and the rest
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gatehub.compiler.dynamic_shapes import unify_shapes
from gatehub.compiler.forward import draw_noise, record_pass, run_network
from gatehub.compiler.lowering import Run, compile_graph
from gatehub.compiler.partition import partition
from gatehub.compiler.program import RECORDED_BATCHES, RECORDED_LABELS, Program
from gatehub.compiler.stem import Stem, lower
from gatehub.compiler.tracing import named_tensors
from gatehub.compiler.verification import verify
from gatehub.errors import ExecutionError

# Other than those that were recorded.
_CHECKED_BATCH = 4
_CHECKED_LABELS = 3

# As shares of the largest logit. The same operations round alike, but for where memory lies.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4}
_HALF_TOLERANCE = 0.02
# Another batch size may take other algorithms, whose rounding grows through a network.
_BATCH_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recording:
    """What a network runs on images of one size.

    Args:
        program: its operations.
        whole: the program as a function (images, weights, labels) → logits.
    """

    program: Program
    whole: Run


def record(
    build: Callable[[int], nn.Module],
    *,
    input_size: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.channels_last,
) -> Recording:
    """Record what a network runs on images of one size, for any batch and number of labels.

    Args:
        build: returns the network with a head for that many labels, and the same weights otherwise.
        input_size: (channels, height, width) of an image.
        device: of the network.
        dtype: of the network.
        memory_format: of the images.

    Raises:
        ExecutionError: the network does not run on such images; what it runs depends on the values
            in an image, or changes with the batch in another way than in proportion; it answers
            for an image by what else is in the batch; or it changes its own weights.
    """
    draw = partial(
        draw_noise, size=input_size, device=device, dtype=dtype, memory_format=memory_format
    )
    passes = (
        record_pass(build(labels), draw(batch, seed=batch), labels=labels)
        for batch, labels in zip(RECORDED_BATCHES, RECORDED_LABELS, strict=True)
    )
    program = verify(unify_shapes(*passes))
    whole = compile_graph(program.graph)
    _check(whole, build(_CHECKED_LABELS), draw(_CHECKED_BATCH, seed=0))
    return Recording(program=program, whole=whole)


def split(program: Program, own: Collection[str]) -> Stem | None:
    """Return what tasks share of a program and what each does with it; see `partition`.

    Args:
        program: stays as it is.
        own: names of the weights that differ from task to task.
    """
    parts = partition(program, own)
    return None if parts is None else lower(parts)


def _check(run: Run, model: nn.Module, images: Tensor) -> None:
    """Check a program against its network, and images of one batch against each other."""
    weights = dict(named_tensors(model))
    tolerance = _TOLERANCES.get(images.dtype, _HALF_TOLERANCE)

    def answer(given: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = run(given.clone(), weights, _CHECKED_LABELS)
        return found

    for given in (images, images[:1]):
        expected = run_network(model, given.clone(), labels=_CHECKED_LABELS)
        try:
            agrees = _agree(answer(given), expected, tolerance)
        except RuntimeError:  # operations that do not fit another batch
            agrees = False
        if not agrees:
            raise ExecutionError(
                f"The recorded operations of this backbone answer differently from it on a batch "
                f"of {len(given)}; expected the same numbers.",
                hint="Serve its tasks as folded models (gatehub.fold).",
            )
    together = answer(images)
    others = images.clone()
    others[1:] = -images[1:].flip(0)
    alone = answer(images[:1])
    exact = images.dtype in _TOLERANCES  # half precision rounds away what would be compared
    if not _agree(answer(others)[:1], together[:1], tolerance) or (
        exact and not _agree(alone, together[:1], _BATCH_TOLERANCE)
    ):
        raise ExecutionError(
            "This backbone answers for an image by what else is in its batch, so requests cannot "
            "share one.",
            hint="Serve its tasks as folded models (gatehub.fold).",
        )


def _agree(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether two answers differ by no more than a share of the largest logit."""
    if found.shape != expected.shape:
        return False
    found, expected = found.double(), expected.double()
    largest = expected.nan_to_num(0, 0, 0).abs().max().item()
    return torch.allclose(found, expected, rtol=0, atol=tolerance * largest, equal_nan=True)
