"""A guide's term of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gatehub.errors import GuidanceError
from gatehub.training.guidance.distances import CKA, Distance
from gatehub.training.guidance.layers import Layer, Watch, stands_for_features, watch_layers


def pair_layers(targets: int, guides: int) -> tuple[int, ...]:
    """Return for each layer of a guide the target's layer that it steers, both spread evenly.

    Layer i of the guide goes to layer round(i (targets - 1) / (guides - 1)), arXiv 2410.20035.

    Args:
        targets: how many layers of the target there are, 1 or more.
        guides: how many of the guide.
    """
    return tuple(round(i * (targets - 1) / max(1, guides - 1)) for i in range(guides))


class Guidance:
    """The sum over pairs of layers of how far a target is from its guide.

        guidance = Guidance(target, guide)
        with guidance.watching():
            for images, labels in batches:
                loss = cross_entropy(target(images), labels) + guidance.loss(images)

    The guide is frozen: it computes without gradients and in evaluation mode. Layers are paired by
    `pair_layers`, in the order in which a pass calls them and without the last one of each network.
    A pair whose target layer does not depend on anything that is learned is left out, since it is
    a constant. (Where several layers of a guide steer one of the target, the authors' code keeps
    the last of them; here all count, as in their formula.)

    Args:
        target: what is trained.
        guide: of any architecture; it must not be the target.
        distance: of two layers.
        weight: of the whole sum, 0 or more.
        selects: which modules of both count.

    Attributes:
        distances: of the pairs, as the last loss found them, by (target layer, guide layer).

    Raises:
        GuidanceError: the weight is no such number, or the guide is the target.
    """

    def __init__(
        self,
        target: nn.Module,
        guide: nn.Module,
        *,
        distance: Distance | None = None,
        weight: float = 1.0,
        selects: Callable[[nn.Module], bool] = stands_for_features,
    ) -> None:
        if target is guide:
            raise GuidanceError("A network cannot guide itself; target and guide are the same one.")
        check_weight(weight)
        self.target = target
        self.guide = guide
        self.distance = distance or CKA()
        self.weight = weight
        self.distances: dict[tuple[str, str], float] = {}
        self._selects = selects
        self._watch: Watch | None = None
        # Which layers of the target are needed; unknown before the first pass of both.
        self._needed: frozenset[int] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on while the target computes; it is left as it was.

        Raises:
            GuidanceError: it has too few layers that count.
        """
        with watch_layers(self.target, self._keep, selects=self._selects) as self._watch:
            yield

    def loss(self, *inputs: Any, **options: Any) -> Tensor:
        """Let the guide answer, and return its term for the target's last pass, a scalar.

        Args:
            inputs: of the guide: the same samples as the target was given, in the same order.
            options: of the guide, by name.

        Raises:
            GuidanceError: nobody watched the target's last pass, nothing of it is learned, the two
                did not see the same samples, or the guide has too few layers that count.
        """
        ours = [] if self._watch is None else self._watch.take()
        if not ours:
            raise GuidanceError(
                "The target has not computed since the last loss of its guide, or nobody watched.",
                hint="Call the target inside `with guidance.watching():`, and then guidance.loss "
                "with the same samples.",
            )
        modes = {module: module.training for module in self.guide.modules()}
        self.guide.eval()
        try:
            with (
                torch.no_grad(),
                watch_layers(self.guide, self._keep_guides, selects=self._selects) as watch,
            ):
                self.guide(*inputs, **options)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return self.weight * self._add_up(ours, watch.take())

    def _add_up(self, ours: list[Layer], theirs: list[Layer]) -> Tensor:
        pairs = list(zip(pair_layers(len(ours), len(theirs)), theirs, strict=True))
        self._needed = frozenset(index for index, _ in pairs)
        found: dict[tuple[str, str], Tensor] = {}
        for index, layer in pairs:
            kept = ours[index].kept
            if kept is not None and layer.kept is not None:
                found[ours[index].name, layer.name] = self.distance.compare(kept, layer.kept)
        if not found:
            raise GuidanceError(
                "No layer that the guide would steer depends on anything that is learned.",
                hint="Let layers learn (requires_grad), in front of the last one.",
            )
        values = torch.stack(list(found.values()))
        self.distances = dict(zip(found, values.detach().tolist(), strict=True))
        return values.sum()

    def _keep(self, features: Tensor, before: int) -> Tensor | None:
        if not features.requires_grad or (self._needed is not None and before not in self._needed):
            return None
        return self.distance.summarise(features)

    def _keep_guides(self, features: Tensor, before: int) -> Tensor:
        return self.distance.summarise(features)


def check_weight(weight: float) -> None:
    """Refuse a weight that is no number from 0 up."""
    known = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not known or not 0 <= weight < float("inf"):
        raise GuidanceError(f"The guide's weight is {weight!r:.100}; expected 0 or more.")
