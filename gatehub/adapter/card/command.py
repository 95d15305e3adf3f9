"""The command that trains such an adapter as a card is of."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from gatehub.adapter.card.names import name_backbone, name_data, name_network, name_origin
from gatehub.adapter.card.tried import GIVEN, SEARCH
from gatehub.adapter.config import AdapterConfig

# Settings that an adapter remembers of its training, and the options of `gatehub train`.
_OPTIONS = {
    "gates": "--gates",
    "norm": "--norm",
    "epochs": "--epochs",
    "batch_size": "--batch-size",
    "gate_rate": "--gate-rate",
    "head_rate": "--head-rate",
    "warmup": "--warmup",
    "averaging": "--averaging",
    "label_smoothing": "--label-smoothing",
    "class_weights": "--class-weights",
    "keep": "--keep",
    "patience": "--patience",
    "val_images": "--val-images",
    "min_crop": "--min-crop",
    "hflip": "--hflip",
    "auto_augment": "--auto-augment",
    "color_jitter": "--color-jitter",
    "precision": "--precision",
    "guide": "--guide",
    "guide_weight": "--guide-weight",
    "guide_steps": "--guide-steps",
    "seed": "--seed",
    "split_val_fraction": "--val-fraction",
    "split_train_images": "--train-images",
}
# What does nothing, and is what the options are where nobody gives them. The others are written
# whatever their defaults are, so that the command stays true where a default changes.
NEUTRAL = {
    "label_smoothing": 0.0,
    "class_weights": "none",
    "auto_augment": "",
    "color_jitter": 0.0,
    "precision": "float32",
}
# What a search decides, unless it was given.
_SEARCHED = ("gates", "norm", "gate_rate", "epochs")
_DTYPE = "float16"  # in which gates are stored where nothing is said
_WHITE = (255, 255, 255)


def write_command(config: AdapterConfig) -> str | None:
    """Return the command that trains such an adapter, None where it was made in another way.

    Of one that was compressed it is two lines: what trained it, and what compressed that.
    """
    data = name_data(config)
    columns = _write_columns(config.training.get("columns"))
    if not data or columns is None:
        return None
    words = ["gatehub", "train", "--backbone", name_backbone(config)]
    words += [word for name in data.values() for word in ("--data", name)]
    words += ["--task", config.task, "--out", config.task]
    words += ["--columns", columns] if columns else []
    words += ["--multi-label"] if config.problem.is_multi_label else []
    words += _list_settings(config)
    words += _list_images(config)
    if SEARCH in config.training:
        words += _list_search(config)
    elif config.layout.start:
        words += ["--start", config.layout.start]
    if config.layout.has_shift:
        words += ["--shift"]
    if (origin := name_origin(config)) is not None:
        words += ["--init-from", origin]
    compressed = "compressed_from" in config.training
    if config.probe is not None and config.probe.dtype != _DTYPE and not compressed:
        words += ["--dtype", config.probe.dtype]
    lines = [words]
    if compressed:
        lines.append(["gatehub", "compress", config.task, *_list_compression(config)])
    command = "\n".join(map(shlex.join, lines))
    told = all(map(str.isprintable, command.split("\n"))) and "`" not in command
    return command if told else None


def _list_compression(config: AdapterConfig) -> Iterator[str]:
    for option in ("rank", "sparsity", "dtype"):
        value = config.training.get(f"compressed_{option}")
        if value is not None:
            yield from (f"--{option}", str(value))
    yield from ("--out", f"{config.task}-small")


def _list_search(config: AdapterConfig) -> list[str]:
    given = _read_given(config)
    if config.training[SEARCH] == "start auto":
        return ["--start", "auto", *_option("--max-drop", given.get("max_drop"))]
    return ["--tune", "small", *_option("--start", given.get("start"))]


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _read_given(config: AdapterConfig) -> dict[str, object]:
    try:
        given = json.loads(str(config.training.get(GIVEN)))
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def _read_scalar(value: object) -> str | int | float | None:
    return value if isinstance(value, str | int | float) else None


def _list_settings(config: AdapterConfig) -> Iterator[str]:
    training = dict(config.training)
    if SEARCH in training:
        given = _read_given(config)
        training |= {name: _read_scalar(given.get(name)) for name in _SEARCHED}
    for setting, option in _OPTIONS.items():
        value = training.get(setting)
        if value is None or isinstance(value, bool) or value == NEUTRAL.get(setting):
            continue
        if setting.endswith("_rate") and config.training.get("epochs") == 0:  # of no steps
            continue
        # --gate-rate is the rate of the normalisation values, too; where theirs is another, both
        # were found, and are found again.
        if setting == "gate_rate" and training.get("norm_rate", value) != value:
            continue
        yield from (option, name_network(str(value)) if setting == "guide" else str(value))
    if training.get("gradient_checkpointing") is True:
        yield "--gradient-checkpointing"
    if training.get("guide_untrained") is True:
        yield "--guide-untrained"


def _list_images(config: AdapterConfig) -> Iterator[str]:
    """Yield the options that say how images are prepared."""
    preprocessing = config.preprocessing
    _, height, width = preprocessing.input_size
    if height == width:  # no other is to be had by the option
        yield from ("--input-size", str(height))
    rules = preprocessing.image_rules
    if rules is not None and rules.background != _WHITE:
        yield from ("--background", "#" + "".join(f"{part:02x}" for part in rules.background))


def _write_columns(recorded: object) -> str | None:
    """Write the columns of a table as --columns takes them; "" for none, None if it cannot."""
    if recorded is None:
        return ""
    try:
        columns = json.loads(recorded) if isinstance(recorded, str) else None
    except ValueError:
        return None
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        return None
    if any("," in name for name in columns.values()):
        return None
    return ",".join(f"{role}={name}" for role, name in columns.items())
