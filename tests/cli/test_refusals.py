"""What `gatehub train` can refuse, it refuses before anything costs time."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from gatehub.adapter import Adapter
from gatehub.cli.app import app
from tests.cli.conftest import Gatehub
from tests.hub.confined import confine, find_obstacle
from tests.training.images import numbered, write_images

# Options that can hold anything: what they are decides nothing before the work begins.
FREE = {
    "resume",
    "force",
    "skip_bad",
    "format",
    "lr_find",
    "hub",
    "multi_label",
    "gradient_checkpointing",
    "guide_untrained",
    "shift",
}
# Refused by the command line itself, with its usage and exit status 2.
USAGE = 2

# Each with what the sentence says. None of them may list the data or build the network.
ARGUMENTS: list[tuple[str, object, str]] = [
    ("task", "../x", "'../x' is not a valid task name"),
    ("task", "", "'' is not a valid task name"),
    ("task", "a b", "'a b' is not a valid task name"),
    ("task", "x" * 97, "is not a valid task name"),
    ("gates", "bogus", "'bogus' is not a gate kind"),
    ("gates", "lowrank:0", "'lowrank:0' is not a gate kind"),
    ("gates", "lowrank:9999", "lowrank:9999' is not a gate kind"),
    ("gates", "", "'' is not a gate kind"),
    ("columns", "file", "Invalid value for '--columns': 'file' is not of the form path=NAME,"),
    ("columns", "path=a,path=b", "Invalid value for '--columns'"),
    ("columns", "lable=class", "Invalid value for '--columns': A column for 'lable' is named"),
    ("norm", "batch", "Normalisation mode is 'batch'"),
    ("start", "", "The first gated stage is ''"),
    ("method", "magic", "Invalid value for '--method'"),
    ("method", "prompt", "Invalid value for '--method'"),
    ("then", "rest", "Invalid value for '--then'"),
    ("rank", 0, "Invalid value for '--rank'"),
    ("rank", 2, "Invalid value: --rank is of --method lora, and the method is gates"),
    ("epochs", -1, "Invalid value for '--epochs'"),
    ("epochs", 2**64, "epochs is 18446744073709551616"),
    ("batch_size", 0, "Invalid value for '--batch-size'"),
    ("seed", -1, "Invalid value for '--seed'"),
    ("seed", 2**63, "seed is 9223372036854775808"),
    ("gate_rate", -0.1, "--gate-rate is -0.1; expected 0 or more"),
    ("gate_rate", "nan", "--gate-rate is nan"),
    ("head_rate", "inf", "--head-rate is inf"),
    ("keep", "first", "Invalid value for '--keep'"),
    ("log_to", "paper", "Invalid value for '--log-to'"),
    ("patience", 0, "Invalid value for '--patience'"),
    ("tune", "large", "Invalid value for '--tune'"),
    ("max_drop", 0.1, "Invalid value: --max-drop is of --start auto"),
    ("patience", 2**64, "patience is 18446744073709551616"),
    ("warmup", 1, "warmup is 1.0; expected 0 to below 1"),
    ("averaging", 1, "averaging is 1.0; expected 0 to below 1"),
    ("input_size", 0, "Invalid value for '--input-size'"),
    ("label_smoothing", -0.1, "--label-smoothing is -0.1; expected 0 to below 1"),
    ("class_weights", "heavy", "Invalid value for '--class-weights'"),
    ("val_images", 0, "Invalid value for '--val-images'"),
    ("min_crop", 0, "--min-crop is 0.0; expected above 0, at most 1"),
    ("color_jitter", 100, "--color-jitter is 100.0; expected 0 to below 100"),
    ("hflip", 1.5, "hflip is 1.5; expected 0 to below 1"),
    ("auto_augment", "bogus", "--auto-augment is 'bogus', which timm cannot apply"),
    ("val_fraction", 0, "validation fraction is 0"),
    ("val_fraction", 1, "validation fraction is 1"),
    ("val_fraction", "nan", "validation fraction is nan"),
    ("train_images", 0, "Invalid value for '--train-images'"),
    ("background", "whitish", "'whitish' is not an opaque colour"),
    (
        "dtype",
        "int2",
        "Gates are stored as bfloat16, float16, float32, int4, int8, sign, sparse, or one of "
        "them with +float16, not as 'int2'",
    ),
    ("device", "nowhere", "Device 'nowhere' cannot be used here"),
    ("device", "cuda:77", "Device 'cuda:77' cannot be used here"),
    ("device", "meta", "Device 'meta' cannot be used here"),
    ("devices", 0, "Invalid value for '--devices'"),
    ("precision", "int8", "Invalid value for '--precision'"),
    ("decoded_bytes", -1, "Invalid value for '--decoded-bytes'"),
    ("workers", -1, "Invalid value for '--workers'"),
    ("backbone", "resnet81", "timm knows no model 'resnet81'"),
    ("backbone", "resnet18.none", "timm knows no weights 'none' for resnet18"),
    ("backbone", "local-dir:none", "'none' has no config.json"),
    ("weights", "x.safetensors", "'demo' brings its own weights"),
    ("guide", "resnet81", "timm knows no model 'resnet81'"),
    ("guide_file", "x.safetensors", "--guide-file says something of a guide, and none is given"),
    ("guide_weight", 2, "--guide-weight says something of a guide, and none is given"),
    ("guide_steps", 0, "Invalid value for '--guide-steps'"),
    ("init_from", "nowhere", "'nowhere' is not a folder, so it is not an adapter"),
]


def out_places(tmp: Path) -> list[tuple[Callable[[], object], str]]:
    """Places where no adapter can be written, as functions that make them, with the sentences."""

    def made(name: str, make: Callable[[Path], object], inside: str = "") -> Callable[[], object]:
        def place() -> object:
            make(tmp / name)
            return tmp / name / inside

        return place

    def interrupt(path: Path) -> None:
        work = path.with_name(f"{path.name}.training")
        work.mkdir()
        (work / "checkpoint.safetensors").write_bytes(b"x")

    def occupy(path: Path) -> None:
        write_images(path.with_name(f"{path.name}.training"), "holiday.png")

    return [
        (made("file", lambda path: path.write_text("x")), "is a file"),
        (made("file", lambda path: path.write_text("x"), "inside"), "is a file, so"),
        (
            made("foreign", lambda path: write_images(path, "a.png")),
            "which would be lost; it is left as it is",
        ),
        (made("link", lambda path: path.symlink_to("nowhere")), "is a link to 'nowhere'"),
        (made("linked", lambda path: path.symlink_to(tmp)), "is a link to"),
        (made("loop", lambda path: path.symlink_to(path)), "is a link to"),
        (lambda: ".", "'.' is the current folder"),
        (lambda: "", "'.' is the current folder"),
        (lambda: "..", "'..' is a folder above the current folder"),
        (lambda: os.sep, "is a folder above the current folder"),
        (lambda: "~", "'~' would be a folder called '~'"),
        (lambda: "~/digits", "'~/digits' would be a folder called '~'"),
        (lambda: Path.home(), "is your home folder"),
        (lambda: "/proc", "is where a file system is mounted"),
        (lambda: "/proc/adapter", "No adapter can be written to '/proc/adapter'"),
        (lambda: "a/" + "n" * 201, "is longer than 200 bytes"),
        (lambda: "/".join(["n" * 200] * 30), "File name too long"),
        (lambda: "data", "The data, 'data', lie in 'data'"),
        (lambda: "data/../data", "lie in 'data/../data'"),
        (lambda: "data/adapter", "'data/adapter' lies among the images of 'data'"),
        (lambda: "data/cat/adapter", "'data/cat/adapter' lies among the images of 'data'"),
        (made("cut", interrupt), "holds an interrupted run"),
        (made("busy", occupy), "A run keeps its state in"),
    ]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A training that could begin, in a current folder of its own."""
    home = tmp_path / "home" / "ada"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    current = tmp_path / "current"
    write_images(current / "data", *numbered("cat", 3), *numbered("dog", 3))
    monkeypatch.chdir(current)
    return {"backbone": "demo", "data": "data", "task": "pets", "out": "out"}


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make everything that costs time an error."""

    def reach(name: str) -> Callable[..., None]:
        def reached(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"{name} was reached")

        return reached

    def forbid(*names: str) -> None:
        for name in (
            *names,
            "gatehub.backbone.load_backbone",
            "gatehub.backbone.preprocessing.open_image",
        ):
            monkeypatch.setattr(name, reach(name))

    return forbid


def train(gatehub: Gatehub, arguments: dict[str, object], *flags: str) -> tuple[int, str]:
    options = [
        part for name, value in arguments.items() for part in (f"--{name.replace('_', '-')}", value)
    ]
    ran = gatehub("train", *options, *flags)
    assert ran.out == ""
    assert "Traceback" not in ran.err
    return ran.status, " ".join(ran.err.split())


def test_a_log_without_its_package_is_refused(
    gatehub: Gatehub,
    arguments: dict[str, object],
    untouched: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    untouched("gatehub.training.data.list_data")
    status, said = train(gatehub, {**arguments, "log_to": "tensorboard"})
    assert (status, sorted(os.listdir())) == (1, ["data"])
    assert said.endswith("is not installed. Hint: pip install 'gatehub[tensorboard]'")


def test_the_fixture_would_train(
    gatehub: Gatehub, arguments: dict[str, object], untouched: Callable[..., None]
) -> None:
    untouched()
    with pytest.raises(AssertionError, match=r"load_backbone was reached"):
        train(gatehub, arguments)
    assert sorted(os.listdir()) == ["data"]


@pytest.mark.parametrize(("option", "value", "sentence"), ARGUMENTS)
def test_a_bad_argument_costs_nothing(
    gatehub: Gatehub,
    arguments: dict[str, object],
    untouched: Callable[..., None],
    option: str,
    value: object,
    sentence: str,
) -> None:
    untouched("gatehub.training.data.read_source", "gatehub.training.preflight.build_structure")
    status, err = train(gatehub, {**arguments, option: value})
    if status == USAGE:
        err = err.replace("│ ", "")
    assert status == (USAGE if sentence.startswith("Invalid value") else 1)
    assert sentence in err
    assert sorted(os.listdir()) == ["data"]


@pytest.mark.parametrize("number", range(len(out_places(Path()))))
def test_a_place_that_cannot_be_is_refused_first(
    gatehub: Gatehub,
    arguments: dict[str, object],
    untouched: Callable[..., None],
    number: int,
    tmp_path: Path,
) -> None:
    untouched("gatehub.training.data.read_source", "gatehub.training.preflight.build_structure")
    place, sentence = out_places(tmp_path)[number]
    out = place()
    before = sorted(tmp_path.rglob("*"))
    status, err = train(gatehub, {**arguments, "out": out})
    assert status == 1
    assert sentence in err
    assert sorted(tmp_path.rglob("*")) == before


def test_data_and_structure_come_before_weights_and_images(
    gatehub: Gatehub,
    arguments: dict[str, object],
    untouched: Callable[..., None],
    tmp_path: Path,
) -> None:
    untouched("gatehub.training.preflight.build_structure")
    (tmp_path / "table.csv").write_text("path,label\n")
    write_images(tmp_path / "odd", *numbered("a\nb", 2), *numbered("c", 2))
    for data, sentence in (
        ("nowhere", "'nowhere' does not exist"),
        (tmp_path / "table.csv", "holds no images"),
        (tmp_path / "odd", 'has the class "a\\nb"; expected one line of text'),
        ("glyphs:elvish", "There is no script 'elvish'"),
    ):
        status, err = train(gatehub, {**arguments, "data": data})
        assert (status, sentence in err) == (1, True), err
    assert sorted(os.listdir()) == ["data"]


def test_images_that_a_network_cannot_take_are_refused_before_its_weights_are_read(
    gatehub: Gatehub, arguments: dict[str, object], untouched: Callable[..., None]
) -> None:
    untouched()
    fixed = {**arguments, "backbone": "pit_xs_224.in1k", "input_size": 96}
    status, err = train(gatehub, fixed)
    assert status == 1
    assert "pit_xs_224.in1k does not take images of 96 x 96 pixels: " in err
    assert "Leave --input-size out" in err


def test_a_stage_is_looked_for_before_the_weights_are_read(
    gatehub: Gatehub, arguments: dict[str, object], untouched: Callable[..., None]
) -> None:
    untouched()
    for backbone in ("demo", "resnet18.a1_in1k"):
        status, err = train(gatehub, {**arguments, "backbone": backbone, "start": "layer9"})
        assert status == 1
        assert "has no stage 'layer9'. Hint: Its stages are: " in err


def test_an_adapter_of_another_backbone_is_refused_before_images_are_decoded(
    gatehub: Gatehub, arguments: dict[str, object], adapter_folder: Path, tmp_path: Path
) -> None:
    """It is pulled from the hub that is named; only a digest tells that it fits, so weights are."""
    hub = tmp_path / "hub"
    assert gatehub("push", adapter_folder, "acme/birds", "--hub", hub).status == 0
    given = {**arguments, "init_from": "acme/birds", "hub": hub}
    status, err = train(gatehub, given)
    assert status == 1
    assert "Adapter 'birds' was trained on" in err
    assert "class train val" not in err
    for option, value, told in (
        ("norm", "stats", "has norm 'affine', and norm 'stats' is asked for"),
        ("background", "black", "has background #ffffff, and background #000000 is asked for"),
        ("input_size", 24, "has input_size 32, and --input-size 24 is"),
    ):
        status, err = train(gatehub, {**given, option: value})
        assert status == 1
        assert told.replace("input_size", "--input-size") in err
        assert sorted(os.listdir()) == ["data"]


def test_every_option_is_looked_at() -> None:
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    tried = {option for option, *_ in ARGUMENTS} | {"out", "data", "start"}
    assert {parameter.name for parameter in command.params} == tried | FREE


def test_another_tasks_adapter_is_replaced_by_force_alone(
    gatehub: Gatehub,
    arguments: dict[str, object],
    untouched: Callable[..., None],
    adapter_folder: Path,
) -> None:
    untouched()
    arguments["out"] = adapter_folder
    status, err = train(gatehub, arguments)
    assert status == 1
    assert "holds the adapter of task 'birds'; expected one of 'pets', or none. Hint: " in err
    assert "--force" in err
    for allowed in (({**arguments, "task": "birds"},), (arguments, "--force")):
        with pytest.raises(AssertionError, match="load_backbone was reached"):
            train(gatehub, *allowed)
    assert Adapter.load(adapter_folder).task == "birds"
    (adapter_folder / "config.json").write_text("{}")
    assert "holds an adapter that cannot be read" in train(gatehub, arguments)[1]
    with pytest.raises(AssertionError, match="load_backbone was reached"):
        train(gatehub, arguments, "--force")


@pytest.mark.slow
@pytest.mark.skipif(bool(find_obstacle()), reason=find_obstacle())
def test_a_disk_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    small, fixed = tmp_path / "small", tmp_path / "fixed"
    fixed.mkdir()
    # Neither the data nor the backbone are there: the disk comes before them.
    command = ("train", "--backbone", "hf-hub:none/none", "--data", "none", "--task", "pets")
    _, full, readonly = confine(
        ("fill", small / "filler"),
        (*command, "--out", small / "deep" / "pets"),
        (*command, "--out", fixed / "pets"),
        small=(small,),
        readonly=(fixed,),
    )
    for ran, reason in ((full, "No space left on device"), (readonly, "Read-only file system")):
        assert (ran["status"], ran["out"]) == (1, ""), ran
        error, hint = ran["err"].splitlines()
        assert error.startswith("Error: No adapter can be written to ")
        assert error.endswith(f": {reason}.")
        assert hint == "Hint: Choose another folder, or see to its disk."
    assert full["left"].keys() == {str(small / "filler")}
    assert sorted(tmp_path.rglob("*")) == [fixed, small]
