"""`gatehub train --guide`: another network steers, and the adapter remembers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_model

from tests.cli.conftest import Gatehub
from tests.training.images import numbered, write_images

TRAIN = ("train", "--backbone", "demo", "--data", "data", "--task", "pets", "--out", "pets")
FAST = ("--epochs", 1, "--batch-size", 4, "--format", "json")
SMALL = "test_resnet.r160_in1k"  # timm's own for tests


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_images(tmp_path / "data", *numbered("cat", 5), *numbered("dog", 5))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_guide_is_recorded_trained_or_not(gatehub: Gatehub, here: Path) -> None:
    """The demo backbone, weights of a file, and weights of the seed."""
    save_model(timm.create_model("test_resnet"), "guide.safetensors")
    for number, (options, expected) in enumerate(
        [
            (("--guide", "demo", "--guide-steps", 1), ("demo", False, 1.0, 1)),
            (
                ("--guide", SMALL, "--guide-file", "guide.safetensors", "--guide-weight", 0.5),
                (SMALL, False, 0.5, None),
            ),
            (
                ("--guide", "test_resnet", "--guide-untrained", "--seed", 3),
                ("test_resnet", True, 1.0, None),
            ),
        ]
    ):
        ran = gatehub(*TRAIN[:-1], f"pets{number}", *FAST, *options)
        assert ran.json["task"] == "pets"
        training = json.loads(Path(f"pets{number}", "config.json").read_text("utf-8"))["training"]
        names = ("guide", "guide_untrained", "guide_weight", "guide_steps")
        assert tuple(training[name] for name in names) == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--guide-untrained",), "--guide-untrained says something of a guide, and none is given"),
        (("--guide", "demo", "--devices", 2), "each of 2 devices would see only its share"),
        (("--guide", "demo", "--gradient-checkpointing"), "gradient checkpointing throws away"),
        (("--guide", "demo", "--batch-size", 2), "A batch has 2 images, and a guide compares 3"),
        (
            ("--guide", "demo", "--guide-weight", -1),
            "The guide's weight is -1.0; expected 0 or more",
        ),
        (("--guide", "demo", "--guide-weight", "nan"), "The guide's weight is nan"),
        (("--guide", "demo", "--guide-untrained"), "and --guide-untrained asks for others"),
        (("--guide", "demo", "--lr-find"), "no adapter is trained, so --guide means nothing"),
        (
            ("--guide", SMALL, "--guide-untrained", "--guide-file", "x.safetensors"),
            "--guide-file names weights, and --guide-untrained draws others",
        ),
        (("--guide", SMALL, "--guide-file", "x.safetensors"), "x.safetensors"),
        (("--guide", "demo", "--then", "finetune"), "with --then there are two"),
        (("--guide", "demo", "--method", "linear"), "and there are none (epochs 0)"),
        (("--guide", "demo", "--gates", "none", "--norm", "frozen"), "No layer that the guide"),
        (("--guide", "demo", "--batch-size", 1), "A batch has 1 image, and a guide compares 3"),
    ],
)
def test_what_contradicts_a_guide_is_refused(
    gatehub: Gatehub, here: Path, options: tuple[object, ...], sentence: str
) -> None:
    ran = gatehub(*TRAIN, *options)
    assert ran.status == 1
    assert sentence in " ".join(ran.err.split())
    assert ran.out == ""
    assert not (here / "pets").exists()
