"""`gatehub train --method`: what each leaves, and what other commands make of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.training.methods import train_network
from tests.cli.conftest import Gatehub
from tests.training.images import numbered, write_images

FEW = ("--data", "sklearn:digits", "--train-images", "40", "--task", "digits", "--epochs")
USAGE = 2


def test_a_fine_tuned_network_is_a_backbone_and_no_adapter(
    gatehub: Gatehub, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    ran = gatehub(
        *("train", "--backbone", "demo", *FEW, 1, "--method", "finetune"),
        *("--out", out, "--format", "json"),
    )
    assert ran.status == 0, ran.err
    assert ran.json.keys() == {
        *("task", "accuracy", "trained_parameters"),
        *("adapter_bytes", "epochs", "seconds"),
    }
    assert ran.json["trained_parameters"] > 400_000
    assert f"timm.create_model('local-dir:{out}', pretrained=True) reads it." in ran.err

    for command in ("verify", "inspect"):
        refused = gatehub(command, out)
        assert refused.status == 1
        assert "holds a whole network in timm's format, and no adapter." in refused.err
        assert f"gatehub distill-to-gates {out} makes one of it" in refused.err
    assert "rates: weights " in ran.err

    probe = gatehub(
        *("train", "--backbone", f"local-dir:{out}", *FEW, 0, "--method", "linear"),
        *("--out", tmp_path / "probe", "--format", "json"),
    )
    assert probe.status == 0, probe.err
    assert probe.json["epochs"] == 0


def test_rates_of_no_steps_are_refused(gatehub: Gatehub, tmp_path: Path) -> None:
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", "sklearn:digits", "--task", "digits"),
        *("--out", tmp_path / "out", "--method", "linear", "--gate-rate", 0.1),
    )
    assert ran.status == USAGE
    assert "--gate-rate is of steps, and there are none (epochs 0)." in ran.err


def test_fine_tuning_follows_an_adapter_that_is_kept(
    gatehub: Gatehub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "data", *numbered("crow", 8), *numbered("jay", 8))
    out, beside = tmp_path / "birds", tmp_path / "birds.adapter"
    command = (
        *("train", "--backbone", "demo", "--data", images, "--task", "birds", "--epochs", 1),
        *("--out", out, "--then", "finetune", "--format", "json"),
    )

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train_network, "write_product", cut_off)
        assert gatehub(*command).status != 0
    adapter = Adapter.load(beside)
    before = (beside / "gates.safetensors").stat().st_mtime_ns
    assert not out.exists()
    changed = (("--seed", 1), ("--gate-rate", 0.25), ("--dtype", "int8"), ("--shift",))
    for option in changed:
        other = gatehub(*command, "--resume", *option)
        assert other.status == 1
        assert f"was trained with {option[0][2:]} = " in other.err.replace("--gate", "gate")

    ran = gatehub(*command, "--resume")

    assert ran.status == 0, ran.err
    assert (beside / "gates.safetensors").stat().st_mtime_ns == before
    assert ran.json["adapter_accuracy"] == adapter.config.metrics["accuracy"]
    assert ran.json["trained_parameters"] > 400_000
    info = json.loads((out / "gatehub.json").read_text(encoding="utf-8"))
    assert info["training"]["init_digest"] == adapter.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds", "birds.adapter", "data"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("finetune", "--gates", "full"), "--gates is of the methods that train adapters"),
        (("scratch", "--start", "layer3"), "--start is of the methods that train adapters"),
        (("finetune", "--devices", "2"), "--devices is of the methods that train adapters"),
        (("scratch", "--lr-find"), "--lr-find is of the methods that train adapters"),
        (("finetune", "--rank", "2"), "--rank is of --method lora"),
        (("finetune", "--then", "finetune"), "--then goes on from an adapter, and method finetune"),
        (("gates", "--then", "finetune", "--devices", "2"), "--devices is of training an adapter"),
        (("gates", "--then", "finetune", "--lr-find"), "--lr-find is of training an adapter alone"),
    ],
)
def test_options_of_other_methods_are_refused(
    options: tuple[str, ...], sentence: str, gatehub: Gatehub, tmp_path: Path
) -> None:
    ran = gatehub(
        *("train", "--backbone", "demo", *FEW, 1, "--out", tmp_path / "out", "--method", *options)
    )
    assert ran.status == USAGE
    assert sentence in " ".join(ran.err.replace("│", " ").split())


def test_a_missing_package_is_named_before_anything_is_read(
    gatehub: Gatehub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", tmp_path / "nowhere", "--task", "digits"),
        *("--out", tmp_path / "out", "--method", "lora"),
    )
    assert ran.status == 1
    assert "Method 'lora' needs the package peft, which is not installed." in ran.err
    assert "pip install 'gatehub[lora]'" in ran.err
