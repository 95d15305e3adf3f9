"""How an image becomes the tensor a backbone expects: one way for training, shell and server.

`docs/preprocessing.md` says it exactly; `examples/preprocess.py` does it with numpy and Pillow
alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_data_config
from torch import Tensor, nn

from gatehub._arguments import check_fields, checked
from gatehub._text import quote, shorten
from gatehub.backbone.images import (
    DEFAULT_MAX_PIXELS,
    NEWEST_RULES,
    ImageRules,
    ImageSource,
    name_source,
    open_image,
)
from gatehub.errors import ImageTooLargeError, InputError

MAX_INPUT_SIDE = 4096
# Of an image that is resized before it is cropped.
MAX_RESIZED_PIXELS = DEFAULT_MAX_PIXELS
# Fine-tuning on larger images is common: at 512, 640 or 800 pixels a side what was trained at 224,
# at 448 what was trained at 112. Time and memory grow with the pixels, from the first load on.
_GROWTH, _MOST_GROWTH = 4, 16
_LARGE_PIXELS = 800 * 800
_LONG = 2  # width over height of a photograph, at most; some are wider

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_CROP_MODES = frozenset({"center", "squash", "border"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """A backbone's evaluation preprocessing, as timm records it with the weights.

    Args:
        input_size: (channels, height, width) of the tensor, in pixels.
        mean: one value per channel, for pixels in [0, 1].
        std: one value per channel, for pixels in [0, 1].
        interpolation: Pillow's name of the resampling filter.
        crop_pct: side of the crop divided by the side the image is resized to, in (0, 1].
        crop_mode: "center", "squash" or "border", as in timm.
        image_rules: how a file becomes a picture; None as before there were any, see `open_image`.

    Raises:
        InputError: a value is out of its range, or no image could be told from another.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str
    image_rules: ImageRules | None = None

    def __post_init__(self) -> None:
        check_fields(self, InputError)
        channels, height, width = self.input_size
        if channels != 3 or not 1 <= min(height, width) <= max(height, width) <= MAX_INPUT_SIDE:
            raise InputError(
                f"Preprocessing input_size is {shorten(str(self.input_size), 80)}; expected 3 "
                f"channels and sides of 1 to {MAX_INPUT_SIDE} pixels."
            )
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        sized = len(self.mean) == len(self.std) == channels
        if not finite or not sized or min(self.std) <= 0:
            raise InputError(
                f"Preprocessing mean {self.mean} and std {self.std} must each have "
                f"{channels} finite values, std above 0."
            )
        if not self._keeps_levels_apart():
            raise InputError(
                f"Preprocessing mean {self.mean} and std {self.std} leave some of the 256 levels "
                "of a channel infinite or equal in half precision.",
                hint="They are for pixels from 0 to 1, such as mean 0.485 and std 0.229.",
            )
        if self.interpolation not in _FILTERS:
            raise InputError(
                f"Preprocessing interpolation is {quote(self.interpolation, 40)}; "
                f"expected one of {', '.join(sorted(_FILTERS))}."
            )
        if not 0 < self.crop_pct <= 1 or self.crop_mode not in _CROP_MODES:
            raise InputError(
                f"Preprocessing crop is {self.crop_pct} {quote(self.crop_mode, 40)}; expected a "
                f"share in (0, 1] and one of {', '.join(sorted(_CROP_MODES))}."
            )
        if height / self.crop_pct * (width / self.crop_pct) > MAX_RESIZED_PIXELS / _LONG:
            raise InputError(
                f"Preprocessing crop_pct is {self.crop_pct}, for which a photograph would be "
                f"resized to more than {MAX_RESIZED_PIXELS:,} pixels before {height} x {width} are "
                "cut out."
            )

    @classmethod
    @checked(InputError)
    def from_model(cls, model: nn.Module) -> Preprocessing:
        """Read the preprocessing from a timm model's own configuration, with the newest rules.

        Source: timm.data.resolve_data_config.
        """
        config = resolve_data_config({}, model=model)
        return cls(
            input_size=tuple(config["input_size"]),
            mean=tuple(map(float, config["mean"])),
            std=tuple(map(float, config["std"])),
            interpolation=config["interpolation"],
            crop_pct=float(config["crop_pct"]),
            crop_mode=config["crop_mode"],
            image_rules=NEWEST_RULES,
        )

    @property
    def max_task_pixels(self) -> int:
        """Height times width of the largest images that a task of a backbone with this may take.

        800 x 800, or 4 times the backbone's own if that is more; but no more than 16 times those.
        """
        own = math.prod(self.input_size[1:])
        return min(max(_GROWTH * own, _LARGE_PIXELS), _MOST_GROWTH * own)

    @checked(InputError)
    def with_input_size(self, side: int) -> Preprocessing:
        """Return a task's preprocessing on a backbone with this, for images of another size.

        Args:
            side: height and width of the tensor, in pixels.

        Raises:
            InputError: it is below 1, or larger than `max_task_pixels` allows.
        """
        largest = math.isqrt(self.max_task_pixels)
        if not 1 <= side <= largest:
            raise InputError(
                f"input_size is {side}; expected 1 to {largest} pixels for tasks of a backbone "
                f"that takes {self.input_size[1]} x {self.input_size[2]}."
            )
        return replace(self, input_size=(3, side, side))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as they are stored: without image rules where there are none."""
        fields = asdict(self)
        if self.image_rules is None:
            del fields["image_rules"]
        return fields

    @checked(InputError)
    def open(
        self,
        source: ImageSource,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_resized_pixels: int = MAX_RESIZED_PIXELS,
    ) -> Image.Image:
        """Decode an image to 8-bit RGB, and refuse one that would become too large.

        Training, `eval`, `predict` and the server open every image here.

        Args:
            source: as for `open_image`.
            max_pixels: refuse larger images before decoding them.
            max_resized_pixels: refuse images that would become larger before they are cropped.

        Raises:
            ImageTooLargeError: it has more pixels, or would be resized to more.
            InputError: it cannot be decoded, or would be resized to nothing.
        """
        image = open_image(source, rules=self.image_rules, max_pixels=max_pixels)
        width, height = self.resized(image.width, image.height)
        becomes = (
            f"{name_source(source)} has {image.width} x {image.height} pixels and would be "
            f"resized to {width} x {height}"
        )
        # The width is resized first, so there is an image of the new width and the old height.
        if width * max(height, image.height) > max_resized_pixels:
            raise ImageTooLargeError(
                f"{becomes}, which takes more than {max_resized_pixels:,}.",
                hint="Crop it, or pad it to a shape nearer to that of the input.",
            )
        if not width or not height:
            raise InputError(f"{becomes}.", hint="Pad it to a shape nearer to that of the input.")
        return image

    @checked(InputError)
    def transform(
        self,
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_resized_pixels: int = MAX_RESIZED_PIXELS,
    ) -> Callable[[ImageSource], Tensor]:
        """Return the evaluation transform: an image → (3, H, W) float32, normalised.

        It takes whatever `open` does, with the same limits and errors, and gives bit for bit what
        timm's evaluation transform gives for the opened image.
        """
        return partial(
            self._transform, max_pixels=max_pixels, max_resized_pixels=max_resized_pixels
        )

    @checked(InputError)
    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) to which an image is resized before it is cropped."""
        _, down, across = (math.floor(side / self.crop_pct) for side in self.input_size)
        if self.crop_mode == "squash":
            return across, down
        if self.crop_mode == "center" and across == down:
            longer = int(across * max(width, height) / min(width, height))
            return (across, longer) if width <= height else (longer, across)
        choose = max if self.crop_mode == "border" else min
        ratio = choose(height / down, width / across)
        return round(width / ratio), round(height / ratio)

    def _transform(
        self, source: ImageSource, *, max_pixels: int, max_resized_pixels: int
    ) -> Tensor:
        image = self.open(source, max_pixels=max_pixels, max_resized_pixels=max_resized_pixels)
        image = image.resize(self.resized(*image.size), _FILTERS[self.interpolation])
        _, height, width = self.input_size
        cut = Image.new("RGB", (width, height), self._border())
        cut.paste(image, (_centre(image.width, width), _centre(image.height, height)))
        pixels = np.asarray(cut, np.float32).transpose(2, 0, 1) / np.float32(255)
        mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (self.mean, self.std))
        return torch.from_numpy(np.ascontiguousarray((pixels - mean) / std))

    def _border(self) -> tuple[int, int, int]:
        """Return the colour around an image that is smaller than the crop."""
        red, green, blue = (min(max(round(255 * value), 0), 255) for value in self.mean)
        return red, green, blue

    def _keeps_levels_apart(self) -> bool:
        """Whether the 256 levels of each channel stay finite and different in half precision."""
        with np.errstate(all="ignore"):
            mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
            levels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
            normalised = ((levels - mean) / std).astype(np.float16)
            rises = np.diff(normalised, axis=0) > 0
        return bool(np.isfinite(normalised).all() and rises.all())


def _centre(side: int, crop: int) -> int:
    """Return where an image begins in the crop: before it, where it is larger."""
    return (crop - side) // 2 if side < crop else -round((side - crop) / 2)
