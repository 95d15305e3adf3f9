"""Tasks with known answers, for tests in which many things happen at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Answer, Engine
from tests.tiny import make_trained, random_images

# Mixed batches multiply in another order than single ones; another task's answer is far away.
CLOSE = 1e-4
FAR = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAnswers:
    """What each of several adapters answers to each of several images.

    Args:
        adapters: all of them distinct.
        images: (N, 3, H, W).
        logits: (N, classes) of each adapter, by its digest.
    """

    adapters: Sequence[Adapter]
    images: Tensor
    logits: Mapping[str, Tensor]

    def check(self, answer: Answer, image: int, *, exact: bool) -> str | None:
        """Say what is wrong with an answer, or return None."""
        known = self.logits[answer.task.digest][image]
        found = answer.logits.reshape(-1)
        if exact and not torch.equal(found, known):
            return f"generation {answer.task.generation}: {found} instead of {known}"
        if not torch.allclose(found, known, rtol=CLOSE, atol=CLOSE):
            return f"generation {answer.task.generation}: {found} instead of about {known}"
        return None


def make_known(backbone: Backbone, *, count: int, images: int = 4) -> KnownAnswers:
    """Make tasks of every kind on a backbone, and ask each alone."""
    kinds = [
        {"gates": "auto"},
        {"gates": "scale"},
        {"gates": "auto", "start": "layer4"},
        {"gates": "lowrank:2", "norm": "stats"},
    ]
    adapters = [
        Adapter.from_model(
            make_trained(backbone, seed=seed, **kinds[seed % len(kinds)]), task=f"task{seed}"
        )
        for seed in range(count)
    ]
    asked = random_images(images)
    logits = {}
    alone = Engine(backbone)
    for adapter in adapters:
        alone.load("task", adapter)
        logits[adapter.digest] = torch.cat(
            [alone.predict("task", asked[n : n + 1]) for n in range(images)]
        )
    digests = list(logits)
    for one, first in enumerate(digests):
        for other in digests[one + 1 :]:
            assert (logits[first] - logits[other]).abs().max() > FAR
    return KnownAnswers(adapters=adapters, images=asked, logits=logits)
