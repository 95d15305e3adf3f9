"""What was tried before an adapter was kept: a figure that was chosen is not one that was measured.

Of many runs the best on the validation images is the luckiest of the good ones, too. So an adapter
that was chosen remembers all of them, as one line of its training settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

SEARCH, TRIED, GIVEN = "search", "tried", "given"
_MOST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedRow:
    """One run of a search.

    Args:
        gates: kind of the gates.
        norm: which normalisation values.
        start: first gated stage, or None.
        rate: of gates and normalisation values, as a multiple of what is found on the images.
        score: by which the best was chosen, on all validation images: accuracy, or mAP.
        calibrated_loss: on the same images, in nats; see `Recipe.keep`.
        trained_parameters: how many numbers were learned.
        adapter_bytes: size of gates.safetensors.
    """

    gates: str
    norm: str
    start: str | None
    rate: float
    score: float
    calibrated_loss: float
    trained_parameters: int
    adapter_bytes: int


_NAMES = tuple(field.name for field in fields(TriedRow))


def write_tried(rows: Sequence[TriedRow]) -> str:
    """Return runs as a line of JSON: the names of the columns, and a row for each."""
    values = [list(asdict(row).values()) for row in rows]
    return json.dumps([list(_NAMES), *values], separators=(",", ":"))


def read_tried(training: Mapping[str, Any]) -> list[TriedRow]:
    """Return the runs that an adapter remembers; none where it has no such line, or another one."""
    try:
        names, *values = json.loads(training.get(TRIED) or "")
        if tuple(names) != _NAMES:
            return []
        rows = [TriedRow(**dict(zip(_NAMES, row, strict=True))) for row in values[:_MOST]]
    except (TypeError, ValueError, RecursionError):
        return []
    return rows if all(map(_is_sound, rows)) else []


def _is_sound(row: TriedRow) -> bool:
    texts = isinstance(row.gates, str) and isinstance(row.norm, str)
    numbers = (row.rate, row.score, row.calibrated_loss, row.trained_parameters, row.adapter_bytes)
    start = row.start is None or isinstance(row.start, str)
    return texts and start and all(type(number) in (int, float) for number in numbers)
