"""What lies beside a network's weights: its configuration, how its images are read, its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatehub._text import first_line, quote
from gatehub.backbone.images import NEWEST_RULES, ImageRules
from gatehub.errors import GatehubError, TrainingError

_MAX_JSON_BYTES = 4_000_000
_PICTURE_FIELDS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")

Json = Mapping[str, Any]


def read_label_file(file: Path) -> tuple[str, ...]:
    """Read labels, one a line.

    Raises:
        TrainingError: it cannot be read, or holds none.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"The labels cannot be read from {quote(str(file))}: {first_line(error)}.",
            hint="Write one label a line, in UTF-8.",
        ) from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise TrainingError(f"{quote(str(file))} holds no label; expected one a line.")
    return labels


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        TrainingError: it does not, or cannot be read.
    """
    try:
        with file.open("rb") as stream:
            value = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(
            f"{quote(str(file))} cannot be read: {first_line(error)}.",
            hint="Save the network again.",
        ) from error
    if not isinstance(value, dict):
        raise TrainingError(f"{quote(str(file))} holds no JSON object.")
    return value


def read_pictures(described: Json, *, rules: bool) -> dict[str, Any]:
    """Return what is said of images as fields of `Preprocessing`.

    Args:
        described: the fields, as JSON has them.
        rules: whether image rules are said, too; else they are the newest.

    Raises:
        TrainingError: rules that there are none of.
    """
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value := described[name], list) else value
        for name in _PICTURE_FIELDS
        if described.get(name) is not None
    }
    for name in ("mean", "std"):
        if isinstance(fields.get(name), tuple):
            fields[name] = tuple(map(_as_number, fields[name]))
    if "crop_pct" in fields:
        fields["crop_pct"] = _as_number(fields["crop_pct"])
    if not rules:
        return {**fields, "image_rules": NEWEST_RULES}
    own = described.get("image_rules")
    if not isinstance(own, dict):
        return {**fields, "image_rules": None}
    try:
        background = tuple(own["background"])
        return {**fields, "image_rules": ImageRules(version=own["version"], background=background)}
    except (GatehubError, KeyError, TypeError) as error:
        raise TrainingError(
            f"Its image rules cannot be read: {first_line(error)}.", hint="Train it again."
        ) from error


def _as_number(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
