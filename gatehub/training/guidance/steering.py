"""How a training run uses a guide: which network, how strongly, for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import DivergenceError, GuidanceError
from gatehub.training.guidance.distances import CKA, Distance
from gatehub.training.guidance.guidance import Guidance, check_weight
from gatehub.training.methods.learner import Learner
from gatehub.training.recipe import Recipe

_KINDS = ("demo", "hf-hub", "local-dir")
Recorded = dict[str, str | int | float | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guide:
    """A network that steers a training, arXiv 2410.20035.

    Args:
        network: it stays as it is; trained, or drawn from a seed. It is given each batch as its own
            preprocessing would size and normalise it.
        weight: of its term of the loss; the published one is 1.
        steps: in how many of the first steps it steers; None for all. 150 to 300 are a start that
            is nearer to the guide, and no more.
        distance: of two layers.

    Raises:
        GuidanceError: a weight or a number of steps that is none.
    """

    network: Backbone
    weight: float = 1.0
    steps: int | None = None
    distance: Distance = field(default_factory=CKA)

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if self.steps is not None and (type(self.steps) is not int or not 1 <= self.steps < 2**63):
            raise GuidanceError(
                f"guide_steps is {self.steps!r:.100}; expected 1 or more, a whole number, or none "
                "for all steps."
            )

    @property
    def untrained(self) -> bool:
        """Whether its weights were drawn from a seed."""
        return self.network.identity.source.startswith("seed:")

    def recorded(self) -> Recorded:
        """Return what an adapter remembers of its guide."""
        identity = self.network.identity
        named = identity.source.partition(":")[0] in _KINDS
        return {
            "guide": identity.source if named else identity.name,
            "guide_digest": identity.digest,
            "guide_untrained": self.untrained,
            "guide_weight": float(self.weight),
            "guide_steps": self.steps,
        }

    def check_run(
        self, recipe: Recipe, *, images: int, processes: int = 1, method: str = "gates"
    ) -> None:
        """Refuse a run that it cannot steer; see `check_run`."""
        check_run(
            recipe,
            images=images,
            processes=processes,
            method=method,
            fewest=self.distance.fewest,
        )

    def steer(self, model: Learner) -> Steering:
        """Begin to steer a model, as an `AddedLoss` of its steps.

        Both compute a few empty images first, so that what cannot be steered is refused at once.

        Raises:
            GuidanceError: a network has too few layers, or none of the model's learns.
        """
        steering = Steering(self, model)
        device = next(model.parameters()).device
        few = torch.zeros(self.distance.fewest, *model.preprocessing.input_size, device=device)
        was_training = model.training
        model.eval()
        with steering.watching(0):
            model(few)
        steering.loss(few)
        model.train(was_training)
        return steering


def check_run(
    recipe: Recipe, *, images: int, processes: int, method: str, fewest: int = CKA().fewest
) -> None:
    """Refuse a run that no guide can steer.

    Args:
        recipe: of the run.
        images: how many there are to train on.
        processes: how many share each batch.
        method: of the run.
        fewest: how many images of a batch are compared, at least; see `Distance`.

    Raises:
        GuidanceError: batches are shared, or too small; or no whole layer gives what is compared.
    """
    if method == "lora":
        raise GuidanceError(
            "With method 'lora' a layer's output is the sum of several layers', which a guide does "
            "not see.",
            hint="Take another method, or no guide.",
        )
    if processes > 1:
        raise GuidanceError(
            f"A guide compares all images of a batch with each other, and each of {processes} "
            "devices would see only its share.",
            hint="Use one device, or no guide.",
        )
    if recipe.gradient_checkpointing:
        raise GuidanceError(
            "A guide needs what gradient checkpointing throws away: the outputs of layers.",
            hint="Leave out gradient_checkpointing, or the guide. Smaller batches (batch_size) "
            "take less memory, too.",
        )
    if (least := min(recipe.batch_size, images)) < fewest:
        raise GuidanceError(
            f"A batch has {least} {'image' if least == 1 else 'images'}, and a guide compares "
            f"{fewest} or more.",
            hint="Take larger batches (batch_size).",
        )


class Steering:
    """A guide's term of the loss of each step; see `gatehub.training.steps.added_loss`.

    Args:
        guide: the guide.
        model: what is trained.
    """

    def __init__(self, guide: Guide, model: Learner) -> None:
        network = _Converted(guide.network, model.preprocessing)
        self._guidance = Guidance(model.net, network, distance=guide.distance, weight=guide.weight)
        self._steps = guide.steps
        self._active = False

    def watching(self, step: int) -> AbstractContextManager[object]:
        """Look on while the model computes, in the steps in which the guide steers."""
        self._active = self._steps is None or step < self._steps
        return self._guidance.watching() if self._active else nullcontext()

    def loss(self, images: Tensor) -> Tensor:
        """Return the guide's term for that pass; 0 where it does not steer.

        Args:
            images: (B, 3, H, W), normalised for the model.

        Raises:
            DivergenceError: it is infinite or NaN.
        """
        if not self._active:
            return torch.zeros((), device=images.device)
        found = self._guidance.loss(images)
        for (ours, theirs), distance in self._guidance.distances.items():
            if not math.isfinite(distance):
                raise DivergenceError(
                    f"The distance of layer '{ours}' from the guide's layer '{theirs}' became "
                    f"{distance}.",
                    hint="Lower gate_rate, or train in float32 (precision).",
                )
        return found


class _Converted(nn.Module):
    """A guide that takes images as they are normalised for another network.

    Args:
        network: the guide.
        given: how the images are prepared that it will be given.
    """

    def __init__(self, network: Backbone, given: Preprocessing) -> None:
        super().__init__()
        self.network = network
        own = network.preprocessing
        factor = [theirs / ours for theirs, ours in zip(given.std, own.std, strict=True)]
        offset = [
            (theirs - ours) / std
            for theirs, ours, std in zip(given.mean, own.mean, own.std, strict=True)
        ]
        self._size = own.input_size[1:]
        self._factor, self._offset = _as_channels(factor), _as_channels(offset)

    def forward(self, images: Tensor) -> Tensor:
        """Compute with (B, 3, H, W) images of any size."""
        weight = next(self.network.parameters())
        images = images.to(weight.device)
        images = images * self._factor.to(images.device) + self._offset.to(images.device)
        if images.shape[2:] != self._size:
            images = F.interpolate(images, self._size, mode="bilinear", antialias=True)
        return self.network(images.to(weight.dtype))  # type: ignore[no-any-return]


def _as_channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)
