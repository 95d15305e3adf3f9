"""What a process needs to take part in a training, as it is told: no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.training.examples import Examples
from gatehub.training.recipe import Recipe
from gatehub.training.sources.huggingface.rows import Place, Row, find_rows
from gatehub.training.sources.pictures import PictureImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A training as each of its processes does it.

    Args:
        backbone: a name for `load_backbone`.
        weights: a file for `load_backbone`, or None.
        digest: the backbone's, as the first process loaded it.
        labels: the names of the classes.
        train: what is learned from, the whole of it.
        recipe: the settings.
        gates: see `attach_gates`.
        norm: see `attach_gates`.
        start: see `attach_gates`.
        preprocessing: how files become tensors.
        workers: processes that decode images beside each of these.
        decoded_bytes: see `train_adapter`; the processes share it.
        shift: see `attach_gates`.
    """

    backbone: str
    weights: str | None
    digest: str
    labels: tuple[str, ...]
    train: Examples
    recipe: Recipe
    gates: str
    norm: str
    start: str | None
    preprocessing: Preprocessing
    workers: int
    decoded_bytes: int
    shift: bool = False


def write_plan(plan: Plan) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a plan as what `Team.tell` sends: values for JSON, and pixels."""
    sources = plan.train.sources
    pixels = {
        str(i): torch.from_numpy(s) for i, s in enumerate(sources) if isinstance(s, np.ndarray)
    }
    fields = {name: getattr(plan, name) for name in Plan.__slots__}
    fields["recipe"] = asdict(plan.recipe)
    fields["preprocessing"] = plan.preprocessing.to_json()
    fields["train"] = {
        "names": plan.train.names,
        "targets": plan.train.targets,
        "label_count": plan.train.label_count,
        "unknown": sorted(plan.train.unknown),
        "files": list(map(_name_source, sources)),
    }
    return fields, pixels


def read_plan(values: Mapping[str, Any], pixels: Mapping[str, Tensor]) -> Plan:
    """Return what `write_plan` was given, from what `Team.hear` returned."""
    fields, train = dict(values), values["train"]
    examples = Examples(
        names=tuple(train["names"]),
        targets=tuple(tuple(t) if isinstance(t, list) else t for t in train["targets"]),
        label_count=train["label_count"],
        unknown=frozenset(train["unknown"]),
        sources=tuple(_find_sources(train["files"], pixels)),
    )
    fields["recipe"] = Recipe(**fields["recipe"])
    fields["labels"] = tuple(fields["labels"])
    fields["preprocessing"] = _read_preprocessing(fields["preprocessing"])
    return Plan(**{**fields, "train": examples})


def _name_source(source: PictureImage) -> str | Place | None:
    """Return the name of a file, or the place of a row; None of pixels, which have none."""
    if isinstance(source, np.ndarray):
        return None
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, Row):
        return source.place
    raise TypeError(f"A plan cannot name a {type(source).__name__}.")


def _find_sources(
    names: Sequence[str | list[Any] | None], pixels: Mapping[str, Tensor]
) -> Iterator[PictureImage]:
    """Yield what `_name_source` named."""
    rows = find_rows(Place(*name) for name in names if isinstance(name, list))
    for index, name in enumerate(names):
        if name is None:
            yield pixels[str(index)].numpy()
        else:
            yield Path(name) if isinstance(name, str) else next(rows)


def _read_preprocessing(fields: Mapping[str, Any]) -> Preprocessing:
    rules = fields.get("image_rules")
    if rules is not None:
        rules = ImageRules(version=rules["version"], background=tuple(rules["background"]))
    plain: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
    return Preprocessing(**(plain | {"image_rules": rules}))
