"""How an adapter is trained: every setting, checked, with defaults that hold on several tasks."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from gatehub.backbone.images import ImageSource
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import TrainingError
from gatehub.training import defaults
from gatehub.training.economy.precision import PRECISIONS

_MAX_COUNT = 2**63  # what JSON readers and seeds can hold
_MAX_JITTER = 100
_COUNTED = {"epochs": 0, "batch_size": 1, "patience": 1, "val_images": 1, "seed": 0}
_OPTIONAL = frozenset({"epochs", "gate_rate", "norm_rate", "head_rate", "min_crop", "patience"})
_WORDS = {
    "keep": ("auto", "best", "last"),
    "class_weights": ("none", "balanced"),
    "precision": tuple(PRECISIONS),
    "gradient_checkpointing": (False, True),
}
_FEWEST_EPOCHS, _MOST_EPOCHS = 5, 60
# Of a policy: how many operations, chains of them and links of a chain an image goes through.
_COUNTS = ("n", "w", "d")
_MAX_OPERATIONS = 10
_MAX_SETTING = 1000  # timm takes a deviation ("mstd") above 100 for a uniform draw
_TRIALS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of one training run.

    What is None is chosen for the data and the backbone at hand, and written down as if it had been
    given.

    Args:
        epochs: passes over the training images; None for as many as make about
            `defaults.STEPS` steps, see `choose_epochs`; 0 for the start alone.
        batch_size: images a step.
        gate_rate: peak learning rate of the gates; None for one that is found, see
            `gatehub.training.start.rates`.
        norm_rate: peak learning rate of the normalisation values; None for that of the gates where
            it is given, else for one that is found.
        head_rate: peak learning rate of the head; None for one that is found.
        gate_decay: share of their distance to M = 1 that gates lose a step, times the rate.
        head_decay: AdamW's weight decay of the head, beside the penalty of its start; see
            `gatehub.training.start`.
        warmup: share of all steps in which the rates rise from 0; then they fall as a cosine.
        averaging: share of all steps over which a running mean of the values goes, which is what
            is measured and kept; 0 for the values of the last step. See `Average`.
        label_smoothing: share of the target spread over all classes.
        min_crop: smallest share of an image's area that a random crop keeps, in (0, 1]; None for
            one that leaves the image readable, see `gatehub.training.start.crops`. At 1, with
            nothing else that is drawn, images are cropped as in evaluation.
        hflip: probability of a mirrored image; 0 suits letters, 0.5 suits photographs.
        auto_augment: timm's description of a policy, such as "rand-m6-n2", or "" for none.
        color_jitter: timm's strength of random brightness, contrast and saturation.
        keep: which epoch's values the adapter gets: "auto" for the one with the least calibrated
            loss on the validation images, of those right about three more than the start; "best"
            for the highest accuracy; or "last". See `choose_epoch`.
        class_weights: "none" for every image alike; "balanced" for every class alike, however many
            images it has, in the probe, in the loss, and where epochs are compared.
        patience: stop after so many epochs without a better one; None to do them all.
        val_images: after each epoch at most so many validation images are looked at, every class
            in proportion; the adapter's accuracy is measured on all of them.
        precision: "float32", "bfloat16" or "float16", in which the steps compute. What
            is learned is kept, and everything is measured, in float32.
        gradient_checkpointing: compute each block a second time in a step instead of keeping its
            activations: less memory, the same adapter, more time.
        seed: decides everything that is drawn. One seed gives one adapter, bit for bit, on one
            machine.

    Raises:
        TrainingError: a value is out of its range.
    """

    epochs: int | None = None
    batch_size: int = defaults.BATCH_SIZE
    gate_rate: float | None = None
    norm_rate: float | None = None
    head_rate: float | None = None
    gate_decay: float = 0.05
    head_decay: float = 0.0
    warmup: float = defaults.WARMUP
    averaging: float = defaults.AVERAGING
    label_smoothing: float = defaults.LABEL_SMOOTHING
    min_crop: float | None = None
    hflip: float = defaults.HFLIP
    auto_augment: str = defaults.AUTO_AUGMENT
    color_jitter: float = defaults.COLOR_JITTER
    keep: str = defaults.KEEP
    class_weights: str = "none"
    patience: int | None = None
    val_images: int = defaults.VAL_IMAGES
    precision: str = "float32"
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in _COUNTED.items():
            count = getattr(self, name)
            if count is None and name in _OPTIONAL:
                continue
            if type(count) is not int or not low <= count < _MAX_COUNT:
                raise TrainingError(
                    f"{name} is {count!r:.100}; expected {low} or more, a whole number below 2^63."
                )
        for name in ("gate_rate", "norm_rate", "head_rate", "gate_decay", "head_decay"):
            self._check_number(name, math.inf, "0 or more")
        self._check_number("color_jitter", _MAX_JITTER, f"0 to below {_MAX_JITTER}")
        for name in ("warmup", "averaging", "label_smoothing", "hflip"):
            self._check_number(name, 1, "0 to below 1")
        crop = self.min_crop
        if crop is not None and not (isinstance(crop, int | float) and 0 < crop <= 1):
            raise TrainingError(f"min_crop is {self.min_crop!r:.100}; expected above 0, at most 1.")
        for name, words in _WORDS.items():
            word = getattr(self, name)
            if word not in words or type(word) is not type(words[0]):
                expected = " or ".join(map(str, words))
                raise TrainingError(f"{name} is {word!r:.100}; expected {expected}.")
        self._check_policy()

    def _check_number(self, name: str, end: float, expected: str) -> None:
        value = getattr(self, name)
        if value is None and name in _OPTIONAL:
            return
        if not isinstance(value, int | float) or not 0 <= value < end:
            raise TrainingError(f"{name} is {value!r:.100}; expected {expected}.")

    def _check_policy(self) -> None:
        """Refuse a policy that timm cannot read or apply, or that takes for ever."""
        policy = self.auto_augment
        try:
            if not isinstance(policy, str):
                raise TypeError("it is not a string")
            _check_settings(policy)
            if policy:
                _try_policy(policy)
        # timm asserts, divides and looks up as it reads the text.
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise TrainingError(
                f"auto_augment is {policy!r:.100}, which timm cannot apply: {reason}.",
                hint="Such as rand-m6-n2, original, v0, 3a or augmix-m3-w3; leave it out for none.",
            ) from error

    def weigh_classes(self, targets: Sequence[int], classes: int) -> list[float] | None:
        """Return what an image of each class counts, 1 on average; None where all count alike.

        Args:
            targets: the class of each training image.
            classes: how many there are; one without images counts nothing.
        """
        if self.class_weights == "none":
            return None
        counts = Counter(targets)
        return [
            len(targets) / (len(counts) * counts[index]) if counts[index] else 0.0
            for index in range(classes)
        ]

    @property
    def compared_by(self) -> str:
        """What the best epoch has most of: "accuracy", or "recall" where classes count alike."""
        return "accuracy" if self.class_weights == "none" else "recall"

    def choose_epochs(self, steps_per_epoch: int) -> int:
        """Return how many epochs there will be, for so many steps in each."""
        if self.epochs is not None:
            return self.epochs
        wanted = math.ceil(defaults.STEPS / steps_per_epoch)
        return min(max(wanted, _FEWEST_EPOCHS), _MOST_EPOCHS)

    def rate_at(self, step: int, steps: int) -> float:
        """Return the share of the peak rate at a step: linear warm-up, then a cosine to 0."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    @property
    def augments(self) -> bool:
        """Whether anything about an image is drawn, anew in each epoch."""
        return self._draws(self.min_crop)

    def _draws(self, min_crop: float | None) -> bool:
        return min_crop != 1 or self.hflip > 0 or self.auto_augment != "" or self.color_jitter > 0

    def augment(
        self, preprocessing: Preprocessing, *, min_crop: float
    ) -> Callable[[ImageSource], torch.Tensor]:
        """Return the training transform: an image → (3, H, W) float32, normalised.

        Images are opened as for the evaluation transform; what follows is timm's. Where nothing is
        drawn it is the evaluation transform.

        Args:
            preprocessing: the one that the images are evaluated with.
            min_crop: the recipe's, or what was chosen for it.
        """
        if not self._draws(min_crop):
            return preprocessing.transform()
        transform: Callable[[Image.Image], torch.Tensor] = create_transform(
            input_size=preprocessing.input_size,
            is_training=True,
            scale=(min_crop, 1.0),
            ratio=(0.8, 1.25),
            hflip=self.hflip,
            color_jitter=self.color_jitter,
            auto_augment=self.auto_augment or None,
            interpolation=preprocessing.interpolation,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
        return partial(_open_and_augment, preprocessing, transform)


def _check_settings(policy: str) -> None:
    """Refuse numbers of a policy that would cost minutes for an image.

    Raises:
        ValueError: a number is too large, or none.
    """
    for setting in policy.split("-")[1:]:
        found = re.match(r"([a-z]*?)(inf|nan|[0-9].*)$", setting, re.DOTALL)
        if found is None:  # no number, or timm's to refuse
            continue
        name, number = found.groups()
        limit = _MAX_OPERATIONS if name in _COUNTS else _MAX_SETTING
        if not float(number) <= limit:
            raise ValueError(f"{setting[:40]!r} is more than {limit}")


def _try_policy(policy: str) -> None:
    """Apply a policy to a small picture, without a trace in what is drawn later."""
    drawn, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            transform = create_transform(input_size=32, is_training=True, auto_augment=policy)
            for seed in range(_TRIALS):
                random.seed(seed)
                np.random.seed(seed)
                transform(Image.new("RGB", (32, 32), "gray"))
    finally:
        random.setstate(drawn)
        np.random.set_state(numbers)


def _open_and_augment(
    preprocessing: Preprocessing,
    transform: Callable[[Image.Image], torch.Tensor],
    source: ImageSource,
) -> torch.Tensor:
    return transform(preprocessing.open(source))
