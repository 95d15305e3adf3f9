"""Batches: every example once, in an order that seed and epoch decide."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gatehub.backbone.images import ImageSource, open_image
from gatehub.errors import InputError, TrainingError
from gatehub.training.batches import count_batches, evaluation_batches, training_batches
from gatehub.training.examples import Examples
from tests.training.images import numbered, write_images
from tests.training.tasks import colour_data


def to_tensor(image: Image.Image) -> Tensor:
    """The picture, with noise from each of the generators that timm's transforms draw from."""
    noise = random.random() + float(np.random.random()) + float(torch.rand(()))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 + noise


def epoch(seed: int, number: int, workers: int = 0) -> list[tuple[Tensor, Tensor]]:
    examples = colour_data(train=20).train
    batches = training_batches(
        examples, to_tensor, batch_size=8, seed=seed, epoch=number, workers=workers
    )
    return list(batches)


def test_an_epoch_depends_on_seed_and_number() -> None:
    again = zip(epoch(3, 1), epoch(3, 1), strict=True)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in again)
    assert not torch.equal(epoch(3, 1)[0][0], epoch(3, 2)[0][0])
    assert not torch.equal(epoch(3, 1)[0][0], epoch(4, 1)[0][0])


def test_each_epoch_has_its_own_order() -> None:
    def order(number: int) -> list[int]:
        return [target for _, targets in epoch(3, number) for target in targets.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 on Linux
def test_workers_change_nothing() -> None:
    alone, helped = epoch(3, 1), epoch(3, 1, workers=2)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(alone, helped, strict=True))


def test_a_smaller_last_batch_is_left_out_unless_it_is_the_only_one() -> None:
    examples = colour_data(train=20).train
    assert [len(t) for _, t in epoch(0, 1)] == [8, 8]
    assert count_batches(examples, 8) == 2
    only = training_batches(examples, to_tensor, batch_size=64, seed=0, epoch=1)
    assert [len(t) for _, t in only] == [20]
    assert count_batches(examples, 64) == 1


def test_evaluation_keeps_the_order() -> None:
    examples = colour_data(train=20).train
    targets = torch.cat([t for _, t in evaluation_batches(examples, to_tensor, batch_size=6)])
    assert tuple(targets.tolist()) == examples.targets


class Vanishing:
    """A transform of files, one of which has gone."""

    def __call__(self, source: ImageSource) -> Tensor:
        return to_tensor(open_image(source))


class Killing:
    """A transform whose process is killed, as the kernel does where memory is short."""

    def __call__(self, source: ImageSource) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanishes_is_named_in_a_sentence(tmp_path: Path, workers: int) -> None:
    photos = write_images(tmp_path, *numbered("a", 8))
    files = tuple(photos / name for name in numbered("a", 8))
    examples = Examples(names=tuple(map(str, files)), targets=(0,) * 8, sources=files)
    files[5].unlink()
    batches = evaluation_batches(examples, Vanishing(), batch_size=2, workers=workers)
    with pytest.raises(InputError) as refused:
        list(batches)
    assert "5.png" in refused.value.message
    assert "Traceback" not in str(refused.value)
    assert "\n" not in refused.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_that_is_killed_is_told_in_a_sentence() -> None:
    batches = evaluation_batches(colour_data(train=8).train, Killing(), batch_size=2, workers=1)
    with pytest.raises(TrainingError, match=r"images was killed.* Use fewer workers"):
        list(batches)
