"""How an image becomes the tensor a backbone expects: one way for training, shell and server."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from timm.data import create_transform, resolve_data_config

from gatehub.errors import ImageTooLargeError, InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_MAX_PIXELS = 50_000_000

# Pillow reads more; some of it starts other programs (EPS runs Ghostscript).
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_INTERPOLATIONS = frozenset(
    {"nearest", "bilinear", "bicubic", "box", "hamming", "lanczos", "nearest-exact"}
)
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

    Raises:
        InputError: a value is out of its range.
    """

    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop_pct: float
    crop_mode: str

    def __post_init__(self) -> None:
        channels, height, width = self.input_size
        if channels != 3 or not 1 <= height <= 4096 or not 1 <= width <= 4096:
            raise InputError(
                f"Preprocessing input_size is {self.input_size}; expected 3 channels "
                "and sides of 1 to 4096 pixels."
            )
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        sized = len(self.mean) == len(self.std) == channels
        if not finite or not sized or min(self.std) <= 0:
            raise InputError(
                f"Preprocessing mean {self.mean} and std {self.std} must each have "
                f"{channels} finite values, std above 0."
            )
        if self.interpolation not in _INTERPOLATIONS:
            raise InputError(
                f"Preprocessing interpolation is {self.interpolation!r}; "
                f"expected one of {', '.join(sorted(_INTERPOLATIONS))}."
            )
        if not 0 < self.crop_pct <= 1 or self.crop_mode not in _CROP_MODES:
            raise InputError(
                f"Preprocessing crop is {self.crop_pct} {self.crop_mode!r}; expected a share in "
                f"(0, 1] and one of {', '.join(sorted(_CROP_MODES))}."
            )

    @classmethod
    def from_model(cls, model: nn.Module) -> Preprocessing:
        """Read the preprocessing from a timm model's own configuration.

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
        )

    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Return timm's evaluation transform: an RGB image → (3, H, W) float32, normalised."""
        transform: Callable[[Image.Image], torch.Tensor] = create_transform(
            input_size=self.input_size,
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )
        return transform


def open_image(source: bytes | str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Decode an image to 8-bit RGB.

    Orientation tags are not applied, as in the data sets that timm's weights come from.

    Args:
        source: encoded bytes, or the path of a file.
        max_pixels: refuse larger images, by their header, before decoding them.

    Raises:
        ImageTooLargeError: more than `max_pixels`.
        InputError: not an image of `IMAGE_FORMATS`, truncated, or of more than 8 bits per channel.
    """
    name = "The image" if isinstance(source, bytes) else f"'{source}'"
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageTooLargeError(
                    f"{name} has {width} x {height} pixels; at most {max_pixels:,} are decoded.",
                    hint="Scale it down first.",
                )
            if image.mode == "F" or image.mode.startswith("I"):
                raise InputError(
                    f"{name} has more than 8 bits per channel (mode {image.mode}).",
                    hint="Convert it to 8 bits first, so that its range is your choice.",
                )
            rgb: Image.Image = image.convert("RGB")
            return rgb
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"{name} has far more than {max_pixels:,} pixels.", hint="Scale it down first."
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"{name} does not exist.", hint="Check the path.") from error
    except Exception as error:  # Pillow's decoders raise whatever their format trips over.
        raise InputError(
            f"{name} cannot be decoded as an image ({type(error).__name__}).",
            hint=f"Give a whole file of one of these formats: {', '.join(IMAGE_FORMATS)}.",
        ) from error
