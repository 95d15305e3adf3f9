"""Batch norm in ONNX, for exporters that write more of its outputs than they then read.

torch 2.6 gives the operator all three outputs that it has in training; onnxscript's translation
takes the one that it has in inference, and the export ends there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnxscript import FLOAT, opset18

op: Any = opset18  # its types know no tensor that may be missing


def translate_batch_norm(
    input: FLOAT,
    weight: FLOAT | None = None,
    bias: FLOAT | None = None,
    running_mean: FLOAT | None = None,
    running_var: FLOAT | None = None,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[FLOAT]:
    """Write aten::_native_batch_norm_legit_no_training; its other outputs are read by nothing.

    The exporter takes it only where names and types are the operator's, and gives None only to
    what has a default.

    Args:
        input: (B, C, …) float32.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        running_mean: (C,).
        running_var: (C,).
        momentum: has no part in inference.
        eps: is added to the variance.

    Returns:
        (B, C, …), alone in a tuple.
    """
    if weight is None:
        weight = op.Expand(op.Constant(value_float=1.0), op.Shape(running_mean))
    if bias is None:
        bias = op.Expand(op.Constant(value_float=0.0), op.Shape(running_mean))
    written = op.BatchNormalization(input, weight, bias, running_mean, running_var, epsilon=eps)
    return (written[0] if isinstance(written, Sequence) else written,)


TRANSLATIONS: Mapping[Callable[..., object], Callable[..., object]] = {
    torch.ops.aten._native_batch_norm_legit_no_training.default: translate_batch_norm
}
