"""Whether two models give the same answers, and by how much they do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gatehub import _text
from gatehub.errors import ExportFormatError, ParityError

INPUT_NAME = "images"
OUTPUT_NAME = "logits"

# Relative. Sound exports of 20 families of timm stay below 3e-6; a real fault, ONNX Runtime's
# Pad_Fusion on a BiT, is at 1.6e-2.
DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two arrays of answers are apart.

    Args:
        max_abs: largest absolute difference.
        max_rel: that, divided by the largest expected value. Not element by element: a logit
            close to 0 has no relative error worth the name.
    """

    max_abs: float
    max_rel: float


def compare(expected: npt.ArrayLike, actual: npt.ArrayLike) -> Difference:
    """Measure how far answers are from the expected ones; infinitely far if one is not finite.

    Args:
        expected: any shape.
        actual: the same shape.

    Raises:
        ParityError: the shapes differ.
    """
    wanted, found = np.asarray(expected, np.float64), np.asarray(actual, np.float64)
    if wanted.shape != found.shape:
        raise ParityError(f"The answers have shape {found.shape}; expected {wanted.shape}.")
    if not (np.isfinite(wanted).all() and np.isfinite(found).all()):
        return Difference(max_abs=math.inf, max_rel=math.inf)
    max_abs = float(np.abs(wanted - found).max(initial=0.0))
    scale = float(np.abs(wanted).max(initial=0.0))
    if max_abs == 0.0:
        return Difference(max_abs=0.0, max_rel=0.0)
    return Difference(max_abs=max_abs, max_rel=max_abs / scale if scale else math.inf)


def check_parity(
    model: bytes,
    images: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    *,
    tolerance: float,
    subject: str,
) -> Difference:
    """Compare an ONNX model's answers on the CPU with the expected ones.

    It must give them for all images at once and for the first alone, with the graph
    optimisations of ONNX Runtime on and off: some of those are wrong for some models.

    Args:
        model: a serialised ONNX model with one input "images" and one output "logits".
        images: (B, C, H, W), normalised.
        expected: (B, classes).
        tolerance: largest relative difference that passes.
        subject: what is compared, for the error.

    Returns:
        The largest difference met.

    Raises:
        ExportFormatError: ONNX Runtime cannot run the model on these images.
        ParityError: a difference is over the tolerance.
    """
    import onnxruntime

    levels = onnxruntime.GraphOptimizationLevel
    modes = {"off": levels.ORT_DISABLE_ALL, "on": levels.ORT_ENABLE_ALL}
    try:
        found = {mode: _measure(model, level, images, expected) for mode, level in modes.items()}
    except ParityError as error:
        raise ParityError(f"{subject}: {error.message}") from error
    except Exception as error:  # ONNX Runtime's errors have no base of their own.
        raise ExportFormatError(
            f"{subject} cannot be run by ONNX Runtime {onnxruntime.__version__} "
            f"on a batch of {len(images)} and of 1 ({first_line(error)})."
        ) from error
    wrong = [mode for mode, difference in found.items() if not difference.max_rel <= tolerance]
    worst = max(found.values(), key=lambda difference: difference.max_rel)
    if not wrong:
        return worst
    hint = "The translation is wrong, or the file was changed afterwards."
    if wrong == ["on"]:
        hint = (
            "An optimisation of ONNX Runtime changes the answers. Pad_Fusion is known to: try "
            'InferenceSession(..., disabled_optimizers=["Pad_Fusion"]).'
        )
    raise ParityError(
        f"{subject} answers differently from the folded model: in ONNX Runtime "
        f"{onnxruntime.__version__} with optimisations {' and '.join(wrong)}, max abs "
        f"{worst.max_abs:.3g}, relative {worst.max_rel:.3g}, tolerance {tolerance:.3g}.",
        hint=hint,
        max_abs_diff=worst.max_abs,
        max_rel_diff=worst.max_rel,
    )


def first_line(error: BaseException) -> str:
    """Return an error's class and the first line of its text, for a sentence of one's own."""
    text, name = _text.first_line(error), type(error).__name__
    return name if text == name else f"{name}: {text}"


def _measure(
    model: bytes,
    level: Any,
    images: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
) -> Difference:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4  # errors come as exceptions; stderr is not ONNX Runtime's
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    differences = [
        compare(expected[:count], session.run([OUTPUT_NAME], {INPUT_NAME: images[:count]})[0])
        for count in (len(images), 1)
    ]
    return max(differences, key=lambda difference: difference.max_rel)
