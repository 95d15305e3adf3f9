"""What the engine takes: images as dense float32 tensors, with finite values, names and limits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from threading import TIMEOUT_MAX

import torch
from torch import Tensor

from gatehub._arguments import check_argument
from gatehub._text import first_line
from gatehub.errors import EngineError, InputError

# A view can claim more values than any memory holds. 128 MiB of float32 is far beyond an image, and
# a gigabyte beyond a batch.
_MAX_IMAGE_VALUES = 2**25
MAX_VALUES = 2**28
# Normalised images stay far below. Beyond, values could leave the range of numbers, and packed
# kernels make numbers of NaN.
_ORDINARY = 1e4


def check_images(images: object, *, channels: int, subject: str) -> bool:
    """Refuse images that no network could answer for.

    Args:
        images: (B, C, H, W) float32, B ≥ 1; anything a caller may have passed.
        channels: C.
        subject: who got them, for the error.

    Returns:
        Whether their values are as those of normalised images.

    Raises:
        InputError: they are something else, or hold NaN or infinity.
    """
    expected = f"expected a dense float32 tensor (B, {channels}, H, W)"
    tensor = _check_tensor(images, subject, expected)
    if tensor.ndim != 4 or tensor.shape[1] != channels or 0 in tensor.shape:
        raise InputError(
            f"{subject} got images of shape {tuple(tensor.shape)}; "
            f"expected (B, {channels}, H, W), none of them 0."
        )
    return _measure(tensor, subject) <= _ORDINARY


def check_image(image: object, *, channels: int, subject: str) -> None:
    """Refuse an image, (C, H, W) float32, that no network could answer for.

    Raises:
        InputError: it is something else, or holds NaN or infinity.
    """
    tensor = _check_tensor(image, subject, f"expected a dense float32 tensor ({channels}, H, W)")
    if tensor.ndim != 3 or tensor.shape[0] != channels or 0 in tensor.shape:
        raise InputError(
            f"{subject} got an image of shape {tuple(tensor.shape)}; "
            f"expected ({channels}, H, W), none of them 0."
        )
    _measure(tensor[None], subject)


def check_names(tasks: Sequence[str], *, where: str, images: int | None = None) -> None:
    """Refuse what is not a sequence of task names, one for each image if their number is given.

    Args:
        tasks: anything a caller may have passed.
        where: what takes them, such as "Engine.run_all()".
        images: how many images there are.

    Raises:
        InputError: it is something else.
    """
    check_argument(tasks, Sequence[str], "tasks", where=where, error=InputError)
    if images is not None and len(tasks) != images:
        raise InputError(
            f"A mixed batch names {len(tasks)} tasks for {images} images; expected one for each.",
            hint="Name the same task several times where it is to answer for several images.",
        )


def check_limits(*, folded_bytes: object, gates_bytes: object, wait_s: object) -> None:
    """Refuse limits of an engine that limit nothing.

    Raises:
        EngineError: not a number of bytes, 0 or more, or None; not a number of seconds.
    """
    for name, limit in (("folded_bytes", folded_bytes), ("gates_bytes", gates_bytes)):
        if limit is not None and (type(limit) is not int or limit < 0):
            raise EngineError(
                f"{name} is {limit!r:.100}; expected a whole number of bytes, 0 or more, or None."
            )
    if type(wait_s) not in (int, float) or not 0 <= wait_s <= TIMEOUT_MAX:  # type: ignore[operator]
        raise EngineError(f"wait_s is {wait_s!r:.100}; expected 0 to {TIMEOUT_MAX:,.0f} seconds.")


def _check_tensor(given: object, subject: str, expected: str) -> Tensor:
    if not isinstance(given, Tensor):
        kind = type(given)
        raise InputError(
            f"{subject} got {kind.__module__.partition('.')[0]}.{kind.__qualname__}; {expected}.",
            hint="A task's preprocessing.transform() makes one of a PIL image, torch.from_numpy of "
            "an array.",
        )
    forms = {
        "without values (meta)": given.is_meta,
        "nested": given.is_nested,
        "quantized": given.is_quantized,
        f"laid out as {given.layout}": given.layout is not torch.strided,
    }
    for form, found in forms.items():
        if found:
            raise InputError(f"{subject} got a tensor that is {form}; {expected}.")
    if given.dtype != torch.float32:
        raise InputError(f"{subject} got images of {given.dtype}; expected float32.")
    of_one = math.prod(given.shape[1:] if given.ndim == 4 else given.shape)
    if of_one > _MAX_IMAGE_VALUES or given.numel() > MAX_VALUES:
        raise InputError(
            f"{subject} got {given.numel():,} values, as {tuple(given.shape)}; at most "
            f"{_MAX_IMAGE_VALUES:,} an image are taken, and {MAX_VALUES:,} at once.",
            hint="Send fewer or smaller images at a time.",
        )
    return given


def _measure(images: Tensor, subject: str) -> float:
    """Return the largest magnitude of the values of images (B, …), all of which must be finite."""
    with torch.inference_mode():
        try:
            low, high = (bound.item() for bound in torch.aminmax(images))
        except RuntimeError as error:  # torch has no question that tells such tensors apart
            raise InputError(
                f"{subject} got a {type(images).__name__} without values that can be read "
                f"({first_line(error)}); expected a dense float32 tensor."
            ) from error
        largest = max(-low, high)
        if largest < float("inf"):  # NaN is not
            return largest
        sound = images.flatten(1).isfinite().all(1)
        number = int(sound.logical_not().nonzero()[0])
    raise InputError(
        f"{subject} got NaN or infinity in image {number} of {len(images)}, counted from 0; "
        "expected finite values.",
        hint="Look at how that image was decoded and normalised.",
    )
