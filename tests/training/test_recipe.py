"""Settings are checked, and the rate follows its schedule."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import ImageTooLargeError, TrainingError
from gatehub.training.batches import seed_everything
from gatehub.training.recipe import Recipe
from tests.backbone.files import encode

PREPROCESSING = Preprocessing(
    input_size=(3, 24, 24),
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"epochs": -1}, "epochs is -1; expected 0 or more"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1; expected 0 or more"),
        ({"gate_rate": -0.1}, "gate_rate is -0.1"),
        ({"head_rate": float("inf")}, "head_rate is inf"),
        ({"warmup": 1.0}, "warmup is 1.0; expected 0 to below 1"),
        ({"hflip": 1.5}, "hflip is 1.5"),
        ({"min_crop": 0.0}, "min_crop is 0.0"),
        ({"keep": "first"}, "keep is 'first'; expected auto or best or last"),
        ({"class_weights": "heavy"}, "class_weights is 'heavy'; expected none or balanced"),
        ({"class_weights": None}, "class_weights is None; expected none or balanced"),
        ({"epochs": 2.5}, "epochs is 2.5; expected 0 or more, a whole number"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"seed": True}, "seed is True"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected 0 or more, a whole number below"),
        ({"gate_rate": float("nan")}, "gate_rate is nan"),
        ({"head_rate": "fast"}, "head_rate is 'fast'; expected 0 or more"),
        ({"min_crop": "small"}, "min_crop is 'small'"),
        ({"auto_augment": "bogus"}, "auto_augment is 'bogus', which timm cannot apply"),
        ({"auto_augment": None}, "auto_augment is None"),
        ({"auto_augment": "augmix-a0"}, "auto_augment is 'augmix-a0', which timm cannot apply"),
        ({"auto_augment": "augmix-ainf"}, "'ainf' is more than 1000"),
        ({"auto_augment": "rand-m9-mstdnan"}, "'mstdnan' is more than 1000"),
        ({"auto_augment": "rand-m9-n11"}, "'n11' is more than 10"),
        ({"auto_augment": "rand-m9-n1000000"}, "'n1000000' is more than 10"),
        ({"auto_augment": "augmix-w100000"}, "'w100000' is more than 10"),
        ({"auto_augment": "augmix-m3-d1000000"}, "'d1000000' is more than 10"),
        ({"color_jitter": 1e308}, r"color_jitter is 1e\+308; expected 0 to below 100"),
    ],
)
def test_refuses_what_is_out_of_range(setting: dict[str, object], text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        Recipe(**setting)  # type: ignore[arg-type]


def test_rate_rises_then_falls_to_nothing() -> None:
    recipe = Recipe(warmup=0.2)
    rates = [recipe.rate_at(step, 50) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.01


def draw_numbers() -> list[float]:
    return [random.random(), np.random.rand(), torch.rand(()).item()]


@pytest.mark.parametrize(
    "policy", ["rand-m9-n2-mstd0.5-inc1", "rand-m9-mstd101", "original-mstd0.5", "v0r", "3a"]
)
def test_a_policy_is_tried_without_a_trace(policy: str) -> None:
    seed_everything(0)
    expected = draw_numbers()
    seed_everything(0)
    assert Recipe(auto_augment=policy).auto_augment == policy
    assert draw_numbers() == expected


def test_augmentation_depends_on_the_seed_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    augment = Recipe(auto_augment="rand-m6-n2", color_jitter=0.2, hflip=0.5).augment(
        PREPROCESSING, min_crop=0.7
    )

    def draw(seed: int) -> torch.Tensor:
        seed_everything(seed)
        return augment(image)

    assert draw(1).shape == (3, 24, 24)
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_without_augmentation_images_are_those_of_the_evaluation() -> None:
    """Whatever their shape; a crop of all of an image may yet be drawn a pixel less."""
    preprocessing = replace(PREPROCESSING, image_rules=ImageRules(), crop_pct=0.9)
    pixels = np.random.default_rng(0).integers(0, 256, (61, 76, 3), np.uint8)
    plain = Recipe(min_crop=1.0)
    assert not plain.augments
    for seed in range(40):
        seed_everything(seed)
        expected = preprocessing.transform()(pixels)
        assert torch.equal(plain.augment(preprocessing, min_crop=1.0)(pixels), expected)
    for drawn in (
        {"min_crop": 0.99},
        {"hflip": 0.1},
        {"auto_augment": "rand-m1-n1"},
        {"color_jitter": 0.1},
    ):
        assert replace(plain, **drawn).augments


def test_images_are_opened_as_the_preprocessing_says() -> None:
    augment = Recipe().augment(replace(PREPROCESSING, image_rules=ImageRules()), min_crop=1.0)
    layer = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    made = []
    for source in (layer, encode(layer), Image.new("RGB", (40, 40), "white")):
        seed_everything(0)
        made.append(augment(source))
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    with pytest.raises(ImageTooLargeError, match="would be resized to"):
        augment(Image.new("1", (1, 180_000)))


@pytest.mark.parametrize(
    ("per_epoch", "epochs"), [(1, 60), (12, 20), (13, 19), (100, 5), (40_000, 5)]
)
def test_epochs_follow_from_the_steps(per_epoch: int, epochs: int) -> None:
    assert Recipe().choose_epochs(per_epoch) == epochs
    assert Recipe(epochs=3).choose_epochs(per_epoch) == 3


def test_balanced_classes_count_alike_and_an_image_1_on_average() -> None:
    targets = [0] * 6 + [1] * 2 + [3] * 4
    assert Recipe().weigh_classes(targets, 4) is None
    weights = Recipe(class_weights="balanced").weigh_classes(targets, 4)
    assert weights == pytest.approx([12 / 18, 2.0, 0.0, 1.0])
    assert weights is not None
    assert sum(weights[target] for target in targets) == pytest.approx(len(targets))
