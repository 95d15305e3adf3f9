from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
from timm.models import save_for_hf

from gatehub.adapter import Adapter
from gatehub.adapter.gate_map import draw_gates
from tests.cli.conftest import Gatehub


def test_a_backbone_is_shown_with_the_cost_of_each_kind(gatehub: Gatehub) -> None:
    shown = gatehub("inspect", "--backbone", "efficientnet_b0", "--format", "json").json
    assert (shown["parameters"], shown["classifier_parameters"]) == (4_007_548, 1_281_000)
    assert len(shown["sites"]) == 81
    assert shown["sites"]["conv_stem"] == {
        "layer": "Conv2d",
        "shape": [32, 3, 3, 3],
        "auto": "full",
    }
    assert shown["sites"]["conv_head"]["auto"] == "lowrank:4"
    assert shown["ungated"] == {}
    # 3.78 M gates for 3.96 M weights: what the paper's form saves on this network is nothing.
    assert shown["gates"]["full"]["gate_parameters"] == 3_782_368
    auto = shown["gates"]["auto"]
    assert auto["sites"] == {"full": 19, "lowrank:4": 62}
    assert auto["parameters"] == auto["gate_parameters"] + auto["norm_parameters"]
    assert auto["bytes"] == 2 * auto["gate_parameters"] + 4 * auto["norm_parameters"]
    assert list(shown["gates"]) == ["auto", "full", "lowrank:4", "scale"]


def test_a_person_sees_a_table_of_100_columns(gatehub: Gatehub) -> None:
    ran = gatehub("inspect", "--backbone", "maxvit_tiny_tf_224.in1k")
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == ["gates", "auto", "full", "lowrank:4", "scale"]
    assert max(map(len, lines)) <= 100
    assert "Gated: 5 Conv2dSame, 55 Conv2d." in ran.err
    assert "Left without gates: 89 Linear (21,692,416 values)." in ran.err


def test_a_stage_and_a_norm_mode_are_heeded(gatehub: Gatehub) -> None:
    options = ("--start", "layer4", "--norm", "frozen", "--format", "json")
    shown = gatehub("inspect", "--backbone", "demo", *options).json
    assert all(site.startswith("layer4.") for site in shown["sites"])
    assert shown["gates"]["auto"]["norm_parameters"] == 0


@pytest.mark.parametrize("arguments", [(), (Path("birds"), "--backbone", "demo")])
def test_either_a_folder_or_a_backbone_is_shown(
    gatehub: Gatehub, arguments: tuple[object, ...]
) -> None:
    ran = gatehub("inspect", *arguments)
    assert ran.status == 2
    assert "give either an adapter's FOLDER or --backbone NAME" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("efficientnet_cc_b0_4e",), "'blocks.4.0.conv_pw' is a CondConv2d, for which there is no"),
        (("resnet1",), "timm knows no model 'resnet1'"),
        (("local-dir:nowhere",), "'nowhere' has no config.json"),
        (("demo", "--start", "layer9"), "ResNet has no stage 'layer9'"),
        (("demo", "--norm", "all"), "Normalisation mode is 'all'"),
        (("naflexvit_base_patch16_gap",), "NaFlexVit has no convolution to gate"),
    ],
)
def test_what_cannot_be_gated_is_said_in_a_sentence(
    gatehub: Gatehub, arguments: tuple[str, ...], message: str
) -> None:
    ran = gatehub("inspect", "--backbone", *arguments)
    assert ran.status == 1
    assert ran.err.startswith("Error: ")
    assert message in ran.err
    assert ran.out == ""


def test_how_far_each_layer_moved_is_listed_and_drawn(
    gatehub: Gatehub, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = Adapter.load(adapter_folder)
    gate = adapter.tensors["conv1.gate"]
    distance = float((gate - 1).square().mean().sqrt())
    shown = gatehub("inspect", adapter_folder, "--format", "json").json
    assert shown["moved"].keys() == adapter.layout.sites.keys()
    assert shown["moved"]["conv1"]["distance"] == pytest.approx(distance)
    assert shown["moved"]["conv1"]["largest"] > distance
    assert "picture" not in shown

    picture = tmp_path / "gates.png"
    ran = gatehub("inspect", adapter_folder, "--plot", picture)
    assert ran.status == 0, ran.err
    line = next(line for line in ran.out.splitlines() if line.startswith("conv1 "))
    assert line.split()[:3] == ["conv1", "full", f"{distance:.3g}"]
    expected = draw_gates(adapter.layout, adapter.tensors, title="Gates of birds")
    assert picture.read_bytes() == expected

    monkeypatch.chdir(tmp_path)  # without a name it is the task's
    assert gatehub("inspect", adapter_folder, "--plot", "--format", "quiet").out == (
        "birds.gates.png\n"
    )
    assert Path("birds.gates.png").read_bytes() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{folder}", "gates.png"), "'gates.png' is one argument too many; a picture needs --plot"),
        (("{folder}", "--plot", "gates.jpg"), "'gates.jpg' does not end in .png"),
        (("--backbone", "demo", "--plot"), "--plot draws the gates of an adapter"),
    ],
)
def test_a_picture_that_could_not_be_drawn_is_wrong_usage(
    gatehub: Gatehub, adapter_folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    ran = gatehub("inspect", *(word.format(folder=adapter_folder) for word in arguments))
    assert ran.status == 2
    assert message in ran.err


def test_an_adapter_without_gates_has_nothing_to_draw(
    gatehub: Gatehub, adapter_folder: Path, tmp_path: Path
) -> None:
    adapter = Adapter.load(adapter_folder)
    gates = adapter.layout.gate_shapes()
    bare = replace(
        adapter,
        config=replace(adapter.config, layout=replace(adapter.layout, sites={})),
        tensors={name: t for name, t in adapter.tensors.items() if name not in gates},
    )
    bare.save(tmp_path / "bare")
    ran = gatehub("inspect", tmp_path / "bare", "--plot", tmp_path / "gates.png")
    assert ran.status == 1
    assert "Adapter 'birds' has no gates that could be drawn." in ran.err
    assert not (tmp_path / "gates.png").exists()


def test_training_notes_what_stays_without_gates(gatehub: Gatehub, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    save_hybrid(folder)
    ran = gatehub(
        *("train", "--backbone", f"local-dir:{folder}", "--data", "sklearn:digits"),
        *("--task", "digits", "--out", tmp_path / "digits", "--epochs", 0, "--train-images", 30),
    )
    assert ran.status == 0, ran.err
    assert "Note: mobilevit_xxs keeps layers without gates: 36 Linear (491,520 values)." in ran.err


def save_hybrid(folder: Path) -> None:
    """A small network with attention, as timm saves one."""
    model = timm.create_model("mobilevit_xxs", num_classes=3)
    model.pretrained_cfg["input_size"] = (3, 64, 64)
    save_for_hf(model, folder, safe_serialization="both")
