"""The command on a card is read by `gatehub train` as the settings that the adapter remembers."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

import typer.main

from gatehub.adapter.card.command import NEUTRAL, write_command
from gatehub.adapter.probe import Probe
from gatehub.backbone.images import ImageRules
from gatehub.cli.app import app
from gatehub.problem import Problem
from gatehub.training.recipe import Recipe
from gatehub.training.sources.tables.columns import write_columns
from tests.adapter.sample import SAMPLE_CONFIG

# They have no option: nothing but the library trains with others than the usual.
WITHOUT_OPTION = {"norm_rate", "gate_decay", "head_decay"}
RECIPE = Recipe(
    epochs=3,
    batch_size=7,
    gate_rate=0.25,
    norm_rate=0.25,
    head_rate=0.125,
    warmup=0.5,
    averaging=0.0,
    label_smoothing=0.1,
    min_crop=0.5,
    hflip=0.5,
    auto_augment="rand-m6-n2",
    color_jitter=0.2,
    keep="best",
    class_weights="balanced",
    patience=4,
    val_images=9,
    precision="bfloat16",
    gradient_checkpointing=True,
    seed=5,
)


def parse(recipe: Recipe, **training: Any) -> dict[str, Any]:
    """Return what `gatehub train` is told by the card of an adapter."""
    preprocessing = replace(
        SAMPLE_CONFIG.preprocessing,
        input_size=(3, 40, 40),
        image_rules=ImageRules(background=(1, 2, 255)),
    )
    config = replace(
        SAMPLE_CONFIG,
        preprocessing=preprocessing,
        problem=Problem(thresholds=(0.5, 0.5)),
        training={"data": "t.csv", **asdict(recipe), **training},
    )
    command = write_command(config)
    assert command is not None
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    return dict(train.make_context("train", shlex.split(command)[2:]).params)


def test_every_setting_comes_back() -> None:
    columns = {"path": "what", "label": "circle|red one", "split": ""}
    told = parse(RECIPE, columns=write_columns(columns))
    for name, value in asdict(RECIPE).items():
        if name not in WITHOUT_OPTION:
            assert value != getattr(Recipe(), name)
            assert getattr(told[name], "value", told[name]) == value, name
    assert told["columns"] == columns
    assert told["multi_label"] is True
    assert (told["input_size"], told["background"]) == (40, "#0102ff")


def test_a_guide_comes_back_without_its_place_on_a_machine() -> None:
    told = parse(
        RECIPE,
        guide="local-dir:/home/ada/guides/wide",
        guide_digest="0" * 64,
        guide_untrained=True,
        guide_weight=0.5,
        guide_steps=200,
    )
    assert told["guide"] == "local-dir:wide"
    assert (told["guide_weight"], told["guide_steps"]) == (0.5, 200)
    assert told["guide_untrained"] is True
    assert parse(RECIPE)["guide"] is None


def test_gates_are_stored_again_as_they_were() -> None:
    for dtype in ("int8", "float16"):
        probe = Probe(seed=0, dtype=dtype, logits=((0.0,) * len(SAMPLE_CONFIG.labels),) * 3)
        config = replace(SAMPLE_CONFIG, probe=probe, training={"data": "t.csv"})
        assert ("--dtype int8" in (write_command(config) or "")) is (dtype == "int8")


def test_what_is_not_said_is_the_default() -> None:
    told = parse(Recipe())
    for name, value in asdict(Recipe()).items():
        if name not in WITHOUT_OPTION:
            assert getattr(told[name], "value", told[name]) == value, name
    defaults = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
    assert {name: defaults[name] for name in NEUTRAL} == NEUTRAL


def test_rates_that_were_found_are_found_again() -> None:
    assert parse(replace(RECIPE, norm_rate=0.5))["gate_rate"] is None


def test_columns_that_no_option_can_name_have_no_command() -> None:
    for columns in (write_columns({"path": "a,b"}), "x", "[1]", '{"path": 7}'):
        training = {"data": "t.csv", "columns": columns}
        assert write_command(replace(SAMPLE_CONFIG, training=training)) is None
