"""The way of a newcomer: train, evaluate, look, share, serve, export; each command a process."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import onnx
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from gatehub.errors import MissingFileError
from tests.cli.conftest import Gatehub

DIGITS = "sklearn:digits"
COMMAND = (sys.executable, "-c", "from gatehub.cli import main; main()")


@pytest.fixture(scope="session")
def digits(gatehub: Gatehub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that `gatehub train` has made in three epochs."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", DIGITS, "--task", "digits"),
        *("--out", folder, "--epochs", 3, "--format", "json"),
    )
    assert ran.json.keys() == {
        "task",
        "accuracy",
        "trained_parameters",
        "adapter_bytes",
        "epochs",
        "seconds",
    }
    assert ran.json["epochs"] == 3
    assert 0.7 < ran.json["accuracy"] <= 1
    assert "epoch 3/3" in ran.err
    return folder


@pytest.fixture(scope="session")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan that the adapter was not trained on."""
    data = load_digits()
    scan = data.images[data.target == 0][0] * (255 / 16)
    path = tmp_path_factory.mktemp("scans") / "zero.png"
    Image.fromarray(scan.round().astype("uint8")).save(path)
    return path


def test_eval_measures_what_train_reported(gatehub: Gatehub, digits: Path) -> None:
    measured = gatehub("eval", digits, "--data", DIGITS, "--format", "json").json
    config = json.loads((digits / "config.json").read_text())
    assert measured["accuracy"] == config["metrics"]["accuracy"]
    assert (measured["images"], measured["split"], measured["trained"]) == (1497, "val", 0)
    human = gatehub("eval", digits, "--data", DIGITS)
    assert f"{100 * measured['accuracy']:.1f} % of 1497 images right (95 % interval " in human.out
    assert "Evaluating 'digits' on 1497 images (val)" in human.err
    quiet = gatehub("eval", digits, "--data", DIGITS, "--format", "quiet")
    assert quiet.out == f"{measured['accuracy']:.6f}\n"
    assert quiet.err == ""


def test_eval_splits_as_training_did(gatehub: Gatehub, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    trained = gatehub(
        *("train", "--backbone", "demo", "--data", DIGITS, "--task", "digits", "--out", out),
        *("--epochs", 1, "--seed", 3, "--train-images", 120, "--format", "json"),
    ).json
    measured = gatehub("eval", out, "--data", DIGITS, "--format", "json").json
    assert measured["accuracy"] == trained["accuracy"]
    assert (measured["images"], measured["split"], measured["trained"]) == (1797 - 120, "val", 0)


def test_predict_shows_labels_and_scores(gatehub: Gatehub, digits: Path, seven: Path) -> None:
    ran = gatehub("predict", digits, seven, "--top-k", 2, "--format", "json").json
    (image,) = ran["images"]
    assert image["image"] == str(seven)
    assert image["predictions"][0]["label"] == "0"
    assert image["predictions"][0]["score"] > image["predictions"][1]["score"] > 0
    assert gatehub("predict", digits, seven, "--format", "quiet").out == "0\n"


def test_inspect_and_verify(gatehub: Gatehub, digits: Path) -> None:
    shown = gatehub("inspect", digits, "--format", "json").json
    assert shown["task"] == "digits"
    assert shown["labels"] == [str(i) for i in range(10)]
    assert shown["backbone_source"] == "demo"
    assert shown["training"]["epochs"] == 3
    assert "digits" in gatehub("inspect", digits).out
    assert "is sound: task 'digits'" in gatehub("verify", digits).out


def test_push_pull_list(gatehub: Gatehub, digits: Path, tmp_path: Path) -> None:
    hub, out = tmp_path / "hub", tmp_path / "pulled"
    pushed = gatehub(
        *("push", digits, "acme/digits", "--hub", hub, "--tag", "v1", "--format", "json")
    ).json
    assert pushed["created"] is True
    again = gatehub("push", digits, "acme/digits", "--hub", hub)
    assert again.out.startswith("Nothing new to push")
    pulled = gatehub("pull", "acme/digits@v1", "--hub", hub, "--out", out, "--format", "json").json
    assert (pulled["name"], pulled["path"]) == ("acme/digits@v1", str(out))
    assert (pulled["commit"], pulled["stale"]) == (pushed["commit"], False)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in digits.iterdir()
    }
    env = {"GATEHUB_HUB": str(hub)}
    (row,) = gatehub("list", "--format", "json", env=env).json["adapters"]
    assert (row["repo"], row["task"], row["classes"]) == ("acme/digits", "digits", 10)
    (revision,) = gatehub("list", "acme/digits", "--format", "json", env=env).json["revisions"]
    assert revision["commit"] == pushed["commit"]
    table = gatehub("list", env=env).out
    assert "acme/digits" in table
    assert max(map(len, table.splitlines())) <= 100


def test_adapters_are_found_by_the_backbone_that_was_named(
    gatehub: Gatehub, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    hub = ("--hub", tmp_path / "hub")
    gatehub("push", digits, "acme/digits", *hub)
    gatehub("pull", "acme/digits", *hub)
    for command in (("search", *hub), ("list", *hub), ("list",)):
        (row,) = gatehub(*command, "--backbone", "demo", "--format", "json").json["adapters"]
        assert (row["repo"], row["backbone"]) == ("acme/digits", "demo")
        # Its architecture has that name, but it fits none of timm's weights.
        assert "no such adapter" in gatehub(*command, "--backbone", "resnet18").out
    assert "no such adapter" in gatehub("list", "--task", "birds").out


def test_a_hub_name_stands_for_a_folder_everywhere(
    gatehub: Gatehub,
    digits: Path,
    seven: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
    name, hub = "acme/digits@v1", ("--hub", tmp_path / "hub")
    gatehub("push", digits, "acme/digits", *hub, "--tag", "v1")
    assert gatehub("predict", name, seven, *hub, "--format", "quiet").out == "0\n"
    assert gatehub("inspect", name, *hub, "--format", "quiet").out == "digits\n"
    assert gatehub("verify", name, *hub).out.startswith(f"{name} is sound: task 'digits'")
    measured = gatehub("eval", name, "--data", DIGITS, *hub, "--format", "json").json
    assert measured["images"] == 1497
    out = tmp_path / "digits.onnx"
    assert gatehub("export", name, "--out", out, *hub, "--format", "quiet").out == f"{out}\n"
    for command in (("predict", seven), ("inspect",), ("verify",), ("serve",)):
        ran = gatehub(command[0], "acme/none", *command[1:], *hub)
        assert (ran.status, ran.out) == (1, "")
        assert ran.err.startswith("Error: 'acme/none' is not a folder here. The hub ")
    # What is here goes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme" / "digits@v1").mkdir(parents=True)
    assert "has no config.json" in gatehub("inspect", name, *hub).err


@pytest.mark.parametrize("by_name", [False, True])
def test_serve_announces_answers_and_stops(
    gatehub: Gatehub,
    digits: Path,
    seven: Path,
    by_name: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["serve", str(digits), "--port", "0", "--format", "json"]
    arguments += ["--dtype", "float32", "--folded-mb", "50", "--gates-mb", "50"]
    if by_name:
        monkeypatch.setenv("GATEHUB_CACHE", str(tmp_path / "cache"))
        gatehub("push", digits, "acme/digits", "--hub", tmp_path / "hub")
        arguments[1:2] = ["acme/digits", "--hub", str(tmp_path / "hub")]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(f"{url}/tasks/digits", seven.read_bytes(), 30) as response:
                answer = json.load(response)
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
    assert answer[0]["label"] == "0"
    assert process.returncode == 0
    assert "Traceback" not in err


def test_export_writes_a_checked_file(gatehub: Gatehub, digits: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(digits, tmp_path / "digits"))
    out = own / "digits.onnx"
    ran = gatehub("export", own, "--out", out, "--format", "json").json
    assert gatehub("inspect", own).status == 0  # an export in its folder does it no harm
    assert ran.keys() == {"path", "max_abs_diff", "opset"}
    assert ran["path"] == str(out)
    assert 0 <= ran["max_abs_diff"] < 1e-4
    assert "is sound: its answers differ" in gatehub("verify", out).out
    moved = out.rename(tmp_path / "a model")  # the content decides, not the name
    verified = gatehub("verify", moved, "--format", "json").json
    assert verified == {"path": str(moved), "sound": True, "state": "as exported"}
    model = onnx.load(moved)
    model.doc_string = "Handwritten digits."
    onnx.save(model, moved)
    state = gatehub("verify", moved, "--format", "json").json["state"]
    assert state == "same answers, file changed"
    model.graph.node[-1].input[0], model.graph.node[-2].output[0] = "last", "last"
    onnx.save(model, moved)
    renamed = gatehub("verify", moved)
    assert f"{moved} is sound" in renamed.out
    assert "Its nodes are joined or named otherwise than in the export, so they" in renamed.err
    model.metadata_props[2].value = "letters"
    onnx.save(model, moved)
    edited = gatehub("verify", moved)
    assert (edited.status, edited.out) == (1, "")
    assert f"Error: '{moved}' was edited after its export: 'task'." in edited.err
    moved.write_bytes(moved.read_bytes()[:-100])
    assert "is not a valid ONNX model" in gatehub("verify", moved).err
    for path, sentence in (("none.onnx", "cannot be read"), (digits / "config.json", "is JSON")):
        refused = gatehub("verify", path)
        assert (refused.status, refused.out) == (1, "")
        assert sentence in refused.err


@pytest.mark.usefixtures("signals_of_a_terminal")
def test_ctrl_c_leaves_a_run_to_continue(digits: Path, gatehub: Gatehub, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    train = ["train", "--backbone", "demo", "--data", DIGITS, "--task", "digits"]
    train += ["--out", str(out), "--epochs", "3"]
    with subprocess.Popen([*COMMAND, *train], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1/3" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Interrupted" in rest
    assert "give the same command with --resume" in rest
    assert "Traceback" not in rest
    assert not out.exists()
    refused = gatehub(*train)
    assert refused.status == 1
    assert "--resume" in refused.err
    other = gatehub(*train, "--resume", "--seed", "9")
    assert "but 9 is asked for now" in other.err
    assert "To go on" not in other.err
    assert gatehub(*train, "--resume").status == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in digits.iterdir()
    }


def test_a_run_that_is_worth_nothing_is_said_to_be(gatehub: Gatehub, tmp_path: Path) -> None:
    ran = gatehub(
        *("train", "--backbone", "demo", "--data", DIGITS, "--task", "digits", "--out"),
        *(tmp_path / "digits", "--epochs", 1, "--keep", "last", "--head-rate", 1e6, "--resume"),
        *("--train-images", 60),
    )
    assert ran.status == 0, ran.err
    assert "There is no interrupted run of " in ran.err
    assert "That is below the linear probe: lower --gate-rate or --head-rate" in ran.err


@pytest.mark.parametrize(
    ("arguments", "sentence", "hint"),
    [
        (("inspect", "nowhere"), "'nowhere' is not a folder", "Check the path"),
        (("predict", "{digits}", "none.png"), "'none.png' does not exist", "Check the path"),
        (("pull", "acme/none", "--hub", "nohub"), "There is no hub at", "Check the path"),
        (
            ("pull", "acme/none"),
            "127.0.0.1:9 cannot be reached",
            "Check the network and HF_ENDPOINT",
        ),
        (("eval", "{digits}", "--data", "nodata"), "'nodata' does not exist", None),
        (("eval", "{digits}", "--data", "glyphs:latin"), "which the adapter lacks", None),
        (
            ("export", "{digits}", "--out", "x.onnx", "--backbone", "resnet81"),
            "resnet81",
            "Did you",
        ),
        # What can be refused before anything is loaded, is.
        (("export", "nowhere", "--out", "x.onnx", "--opset", "17"), "opset 17", "18 is the one"),
        (("export", "nowhere", "--out", "."), "'.' is a folder", "Name a file"),
        (("export", "nowhere", "--out", "{digits}/config.json"), "a file of the adapter", "Choose"),
        (("serve", "{digits}", "--dtype", "int8"), "dtype is 'int8'", "expected one of auto"),
        (("serve", "{digits}", "{digits}"), "Two of the folders", "another name"),
        (("inspect", "{digits}", "--weights"), None, None),
        (("train", "--task", "x"), None, None),
    ],
)
def test_mistakes_get_a_sentence(
    gatehub: Gatehub,
    digits: Path,
    arguments: tuple[str, ...],
    sentence: str | None,
    hint: str | None,
) -> None:
    ran = gatehub(*(a.format(digits=digits) for a in arguments), env={"GATEHUB_HUB": ""})
    assert ran.status == (2 if sentence is None else 1)
    assert ran.out == ""
    assert "Traceback" not in ran.err
    if sentence is not None:
        assert ran.err.startswith("Error: ")
        assert sentence in ran.err
    if hint is not None:
        assert f"Hint: {hint}" in ran.err or hint in ran.err


def test_debugging_shows_the_traceback(gatehub: Gatehub) -> None:
    with pytest.raises(MissingFileError):
        gatehub("inspect", "nowhere", env={"GATEHUB_DEBUG": "1"})


def test_the_installed_command_runs() -> None:
    ran = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert ran.stdout.startswith("gatehub ")


def test_the_help_of_train_says_what_several_labels_change(gatehub: Gatehub) -> None:
    shown = gatehub("train", "--help", env={"COLUMNS": "100"}).out
    words = " ".join(shown.replace("\u2502", " ").split())
    assert "With --multi-label, auto and best: the highest mean average precision." in words
    assert "or hf:NAME, with a list of labels in each row." in words


def test_every_help_shows_an_example(gatehub: Gatehub) -> None:
    commands = (
        "train",
        "eval",
        "predict",
        "inspect",
        "verify",
        "push",
        "pull",
        "list",
        "serve",
        "export",
        "demo",
    )
    shown = gatehub("--help").out
    for command in commands:
        assert f" {command} " in shown
    for command in ("train", "serve"):
        assert f"Example: gatehub {command}" in gatehub(command, "--help").out
