"""Networks of a task's own: fine-tuned, from scratch, and with PEFT's updates."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone, load_backbone
from gatehub.errors import AdapterExistsError, MissingFileError, ResumeError, TrainingError
from gatehub.gates.fold import fold
from gatehub.problem import ONE_LABEL
from gatehub.training.batches import evaluation_batches
from gatehub.training.evaluation import evaluate
from gatehub.training.methods.network import copy_weights, describe_network, draw_network
from gatehub.training.methods.products import INFO_FILE
from gatehub.training.methods.train_network import train_network
from gatehub.training.methods.whole import WholeModel
from gatehub.training.recipe import Recipe
from gatehub.training.report import Report
from gatehub.training.sources.products import is_product
from tests.tiny import OneLayer, make_backbone, make_trained, random_images, snapshot
from tests.training.tasks import LABELS, colour_data, light_data, take_labels
from tests.training.watching import CutOff

RECIPE = Recipe(epochs=2, batch_size=16)
WEIGHTS = {"lora": "adapter_model.safetensors"}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """The tiny one, with what timm needs to build it again."""
    arguments = {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)}
    return Backbone(make_backbone().model, arguments=arguments)


@pytest.fixture(params=["finetune", "scratch", "lora"])
def method(request: pytest.FixtureRequest) -> str:
    if request.param == "lora":
        pytest.importorskip("peft")
    return request.param


def train(backbone: Backbone, out: Path, method: str, **options: object) -> Report:
    given = {"task": "colours", "method": method, "recipe": RECIPE} | options
    return train_network(backbone, colour_data(), out, **given)  # type: ignore[arg-type]


def reload(backbone: Backbone, folder: Path, method: str) -> nn.Module:
    """Read what a run left as those do who know nothing of gatehub."""
    if method != "lora":
        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    from peft import PeftModel

    config = describe_network(backbone, LABELS, backbone.preprocessing)
    net = draw_network(backbone, config, seed=5)
    theirs = backbone.model.state_dict()
    copy_weights(backbone, net, {n: t for n, t in theirs.items() if not n.startswith("fc.")})
    return PeftModel.from_pretrained(net, str(folder)).eval()


def test_what_a_method_leaves_is_as_good_elsewhere_as_it_says(
    method: str, backbone: Backbone, tmp_path: Path
) -> None:
    before = snapshot(backbone.model)
    report = train(backbone, tmp_path / "net", method)

    assert all(torch.equal(before[n], t) for n, t in backbone.model.state_dict().items())
    info = json.loads((tmp_path / "net" / "gatehub.json").read_text(encoding="utf-8"))
    assert (info["task"], info["method"]) == ("colours", method)
    assert info["labels"] == list(LABELS)
    assert info["metrics"]["accuracy"] == report.accuracy
    assert report.accuracy > max(0.5, report.start_accuracy - 0.1)
    weights = tmp_path / "net" / WEIGHTS.get(method, "model.safetensors")
    assert report.adapter_bytes == weights.stat().st_size
    loaded = reload(backbone, tmp_path / "net", method)
    val = list(evaluation_batches(colour_data().val, backbone.preprocessing.transform()))
    assert evaluate(loaded, val).accuracy == report.accuracy
    assert not (tmp_path / "net.training").exists()


def test_an_interrupted_run_ends_with_the_same_bytes(
    method: str, backbone: Backbone, tmp_path: Path
) -> None:
    train(backbone, tmp_path / "whole", method)
    with pytest.raises(KeyboardInterrupt):
        train(backbone, tmp_path / "cut", method, observer=CutOff(1, in_next=1))
    with pytest.raises(ResumeError, match="holds an interrupted run"):
        train(backbone, tmp_path / "cut", method)
    torch.manual_seed(77)
    train(backbone, tmp_path / "cut", method, resume=True)

    name = WEIGHTS.get(method, "model.safetensors")
    for file in (name, "training.jsonl"):
        cut, whole = (tmp_path / run / file for run in ("cut", "whole"))
        assert cut.read_bytes() == whole.read_bytes()


def test_another_method_does_not_go_on_with_a_run(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(backbone, tmp_path / "net", "finetune", observer=CutOff(1, in_next=1))
    with pytest.raises(ResumeError, match="has method = 'finetune', but 'scratch' is asked for"):
        train(backbone, tmp_path / "net", "scratch", norm="affine", resume=True)


@pytest.mark.parametrize("norm", ["affine", "stats"])
def test_a_whole_network_is_stored_bit_for_bit(
    norm: str, backbone: Backbone, tmp_path: Path
) -> None:
    config = describe_network(backbone, LABELS, backbone.preprocessing)
    net = draw_network(backbone, config, seed=1)
    model = WholeModel(
        net, backbone, config, preprocessing=backbone.preprocessing, norm=norm
    ).train()
    images = random_images(8)
    model(images).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
    model.eval()

    for name, data in model.files().items():
        (tmp_path / name).write_bytes(data)

    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images), model(images))
    assert loaded.pretrained_cfg["label_names"] == list(LABELS)
    again = load_backbone(tmp_path)
    assert again.preprocessing == backbone.preprocessing
    assert again.identity.tag == ""
    fresh = draw_network(backbone, config, seed=1).state_dict()
    moved = {n for n, t in model.net.state_dict().items() if not torch.equal(t, fresh[n])}
    assert {"conv1.weight", "bn1.weight", "fc.bias"} <= moved
    assert ("bn1.running_mean" in moved) == (norm == "stats")


def test_seeds_decide_what_random_weights_are(backbone: Backbone) -> None:
    config = describe_network(backbone, LABELS, backbone.preprocessing)
    one, same, other = (draw_network(backbone, config, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_fine_tuning_goes_on_from_an_adapter_as_it_answers(
    backbone: Backbone, tmp_path: Path
) -> None:
    model = make_trained(backbone, labels=LABELS, norm="stats")
    adapter = Adapter.from_model(model, task="colours")

    report = train(
        backbone, tmp_path / "net", "finetune", init_from=adapter, recipe=Recipe(epochs=0)
    )

    images = random_images(4)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True).eval()
    torch.testing.assert_close(loaded(images), fold(backbone, adapter)(images))
    assert report.epochs == report.kept_epoch == 0


def test_labels_of_which_nothing_is_said_keep_row_and_threshold(
    backbone: Backbone, tmp_path: Path
) -> None:
    model = make_trained(backbone, labels=("red", "blue"))
    adapter = Adapter.from_model(model, task="lights", thresholds=[0.25, 0.75])
    data = take_labels(light_data(), "green")
    options = {"task": "lights", "method": "finetune", "recipe": Recipe(epochs=1)}
    out = tmp_path / "net"
    train_network(backbone, data, out, init_from=adapter, **options)  # type: ignore[arg-type]
    told = json.loads((out / INFO_FILE).read_text())
    assert told["labels"] == ["red", "blue", "green"]
    assert told["thresholds"][:2] == [0.25, 0.75]
    loaded = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert torch.equal(loaded.fc.weight[:2], adapter.tensors["head.weight"])
    assert not torch.equal(loaded.conv1.weight, backbone.model.conv1.weight)
    one = replace(adapter, config=replace(adapter.config, problem=ONE_LABEL))
    with pytest.raises(TrainingError, match="gives an image one label, and any number of them is"):
        train_network(backbone, data, tmp_path / "b", init_from=one, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "options", "text"),
    [
        ("finetune", {"norm": "frozen"}, "Method 'finetune' takes norm affine or stats, and norm"),
        ("lora", {"norm": "stats"}, "Method 'lora' takes norm frozen, and norm 'stats'"),
        ("prompt", {}, "method is 'prompt'; expected one of gates, .*, scratch, lora"),
    ],
)
def test_what_contradicts_a_method_is_refused(
    method: str, options: dict[str, str], text: str, backbone: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=text):
        train(backbone, tmp_path / "net", method, **options)
    assert list(tmp_path.iterdir()) == []


def test_only_fine_tuning_goes_on_from_an_adapter(backbone: Backbone, tmp_path: Path) -> None:
    adapter = Adapter.from_model(make_trained(backbone, labels=LABELS), task="colours")
    with pytest.raises(TrainingError, match="Method 'scratch' begins anew, and an adapter"):
        train(backbone, tmp_path / "net", "scratch", init_from=adapter)


def test_a_network_that_timm_did_not_build_is_refused(tmp_path: Path) -> None:
    own = Backbone(OneLayer(nn.Conv2d(3, 4, 3), 4))
    with pytest.raises(TrainingError, match=r"timm cannot build .* again from its configuration"):
        train(own, tmp_path / "net", "finetune")


def test_nothing_else_is_replaced(backbone: Backbone, tmp_path: Path) -> None:
    out = tmp_path / "net"
    recipe = Recipe(epochs=0)
    train(backbone, out, "finetune", recipe=recipe)
    train(backbone, out, "finetune", recipe=recipe)  # the same task and method
    for options, method in (({"task": "shades"}, "finetune"), ({}, "scratch")):
        with pytest.raises(AdapterExistsError, match="holds task 'colours' by method 'finetune'"):
            train(backbone, out, method, recipe=recipe, **options)
    train(backbone, out, "scratch", recipe=recipe, force=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(AdapterExistsError, match=r"holds 'notes.txt', which would be lost"):
        train(backbone, out, "scratch", recipe=recipe, force=True)
    assert (out / "notes.txt").read_text() == "mine"

    adapter = Adapter.from_model(make_trained(backbone), task="colours").save(tmp_path / "birds")
    with pytest.raises(AdapterExistsError, match="which would be lost"):
        train(backbone, adapter, "finetune", recipe=recipe, force=True)
    assert Adapter.load(adapter).task == "colours"
    shutil.rmtree(out)
    out.mkdir()
    (out / "config.json").write_text("{}")
    with pytest.raises(AdapterExistsError, match="holds something other than what method"):
        train(backbone, out, "finetune", recipe=recipe, force=True)


def test_no_command_takes_such_a_folder_for_an_adapter(backbone: Backbone, tmp_path: Path) -> None:
    train(backbone, tmp_path / "net", "finetune", recipe=Recipe(epochs=0))
    with pytest.raises(MissingFileError, match="holds a whole network in timm's format") as e:
        Adapter.load(tmp_path / "net")
    assert f"local-dir:{tmp_path / 'net'}" in (e.value.hint or "")
    assert is_product([path.name for path in (tmp_path / "net").iterdir()])
