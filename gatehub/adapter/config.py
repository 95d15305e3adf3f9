"""config.json of an adapter: what it says, written and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gatehub._text import quote, shorten
from gatehub.adapter._fields import Fields, describe, is_number, is_text, parse_json
from gatehub.adapter._sections import (
    check_setting_names,
    read_backbone,
    read_files,
    read_layout,
    read_metrics,
    read_preprocessing,
    read_problem,
    read_tensors,
    read_training,
)
from gatehub.adapter.coding.packed import TensorSpec
from gatehub.adapter.coding.stored import is_head
from gatehub.adapter.names import check_line, check_task_name
from gatehub.adapter.probe import Probe, read_probe
from gatehub.backbone import BackboneIdentity
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import AdapterFormatError, ConfigError, FormatVersionError, GatehubError
from gatehub.gates.layout import GateLayout
from gatehub.problem import ONE_LABEL, Problem

# Version 2 has packed gates, version 3 shifts, version 4 heads and normalisation values in half
# precision. What needs none of them is written as version 1.
FORMAT_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """Everything an adapter says about itself beside its numbers.

    Args:
        task: name of the task: letters, digits, ".", "_" and "-", at most 96.
        labels: class names, in the order of the logits.
        backbone: the weights it was trained on.
        layout: which gates and normalisation values it holds.
        preprocessing: how images become its input.
        metrics: figures measured on validation data, such as "accuracy".
        training: how it was trained, one value for each setting.
        tensors: how each tensor is stored; empty until it is saved.
        files: SHA-256 of each other file of the folder; empty until it is saved.
        probe: what it answered where it was made, or None where that was not kept.
        problem: whether an image has one of the labels or any number of them, and from which scores
            on.

    Raises:
        UnsafeNameError: the task's name could be taken for a path.
        ConfigError: no labels, or two alike, or one that is not a line of text; another number of
            thresholds; a metric that is not a finite number; a setting that is not a single value.
    """

    task: str
    labels: tuple[str, ...]
    backbone: BackboneIdentity
    layout: GateLayout
    preprocessing: Preprocessing
    metrics: Mapping[str, float]
    training: Mapping[str, str | int | float | bool | None]
    tensors: Mapping[str, TensorSpec]
    files: Mapping[str, str]
    probe: Probe | None = None
    problem: Problem = ONE_LABEL

    def __post_init__(self) -> None:
        check_task_name(self.task)
        if not self.labels or len(set(self.labels)) != len(self.labels) or "" in self.labels:
            raise ConfigError(
                f"Adapter '{self.task}' has {len(self.labels)} labels, "
                f"{len(set(self.labels) - {''})} of them named and distinct; "
                "expected at least one, all named, all distinct."
            )
        for label in self.labels:
            check_line(label, f"Adapter '{self.task}' has the label")
        thresholds = self.problem.thresholds
        if thresholds is not None and len(thresholds) != len(self.labels):
            raise ConfigError(
                f"Adapter '{self.task}' has {len(self.labels)} labels, but {len(thresholds)} "
                "thresholds; expected one for each label."
            )
        if self.probe is not None and len(self.probe.logits[0]) != len(self.labels):
            raise ConfigError(
                f"Adapter '{self.task}' has {len(self.labels)} labels, but its probe has "
                f"{len(self.probe.logits[0])} logits."
            )
        check_setting_names((*self.metrics, *self.training), f"Adapter '{self.task}'")
        for name, value in self.metrics.items():
            if not is_number(value):
                raise ConfigError(
                    f"Adapter '{self.task}' has the metric {quote(name, 80)} {_show(value)}; "
                    "expected a finite number."
                )
        for name, setting in self.training.items():
            told = isinstance(setting, str) and (not setting or is_text(setting))
            if not (told or isinstance(setting, bool | None) or is_number(setting)):
                raise ConfigError(
                    f"Adapter '{self.task}' has the training setting {quote(name, 80)} "
                    f"{_show(setting)}; expected a line of text, a finite number, true, false or "
                    "None."
                )

    @property
    def format_version(self) -> int:
        """The least version of the format that has what it declares."""
        # Every adapter has a head, and normalisation values are of its dtype.
        if any(spec.dtype != "F32" for name, spec in self.tensors.items() if is_head(name)):
            return 4
        if self.layout.has_shift:
            return 3
        return 2 if any(spec.is_packed for spec in self.tensors.values()) else 1

    def to_json(self) -> bytes:
        """Return config.json: UTF-8, indented, one line for each site and tensor.

        Raises:
            ConfigError: a text that UTF-8 cannot write.
        """
        gates = self.layout
        value: dict[str, Any] = {
            "format_version": self.format_version,
            "task": self.task,
            "labels": list(self.labels),
            **self.problem.to_json(),
            "backbone": asdict(self.backbone),
            "gates": {
                "kind": gates.policy,
                "start": gates.start,
                "sites": {
                    name: {
                        "kind": str(gate.kind),
                        "shape": list(gate.shape),
                        **({"shift": True} if gate.shift else {}),
                    }
                    for name, gate in gates.sites.items()
                },
            },
            "norm": gates.norm,
            "preprocessing": self.preprocessing.to_json(),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "training": dict(self.training),
            "tensors": {
                name: {
                    "dtype": spec.dtype,
                    "shape": list(spec.shape),
                    **({} if spec.kept is None else {"kept": spec.kept}),
                }
                for name, spec in self.tensors.items()
            },
            "files": dict(self.files),
        }
        if self.probe is not None:
            value["probe"] = self.probe.to_json()
        text = _render(value) + "\n"
        try:
            return text.encode()
        except UnicodeEncodeError as error:  # a path whose bytes are not text
            around = text[max(0, error.start - 20) : error.end].splitlines()[-1]
            raise ConfigError(
                f"Adapter '{self.task}' has a text with …{around!a}; expected one line of text "
                "that UTF-8 can write."
            ) from error

    @classmethod
    def from_json(cls, data: bytes, *, where: str = "config.json") -> AdapterConfig:
        """Read config.json.

        Raises:
            FormatVersionError: written by a newer gatehub.
            DuplicateKeyError: a key stands twice.
            UnsafeNameError: a name that could be taken for a path.
            ConfigError: a field is unknown, missing, ill-typed or out of range.
        """
        fields = Fields(parse_json(data, where=where), where=where)
        version = fields.take("format_version", int)
        if version > FORMAT_VERSION:
            raise FormatVersionError(
                f"{where} is of format version {describe(version)}; this gatehub reads up to "
                f"{FORMAT_VERSION}.",
                hint="Upgrade gatehub (pip install -U gatehub).",
            )
        if version < 1:
            raise ConfigError(
                f"{where} is of format version {describe(version)}; there is none below 1."
            )
        try:
            config = cls(
                task=fields.take("task", str),
                labels=fields.take_list("labels", str),
                backbone=read_backbone(fields.take_fields("backbone")),
                layout=read_layout(fields.take_fields("gates"), fields.take("norm", str), where),
                preprocessing=read_preprocessing(fields.take_fields("preprocessing")),
                metrics=read_metrics(fields.take_fields("metrics")),
                training=read_training(fields.take_fields("training")),
                tensors=read_tensors(fields.take_fields("tensors"), where),
                files=read_files(fields.take_fields("files"), where),
                probe=(
                    read_probe(fields.take_fields("probe")) if "probe" in fields.names() else None
                ),
                problem=(
                    # Adapters of one label an image have none.
                    read_problem(fields.take_fields("problem"))
                    if "problem" in fields.names()
                    else ONE_LABEL
                ),
            )
        except AdapterFormatError:
            raise
        except GatehubError as error:
            raise ConfigError(f"{where}: {error.message}") from error
        fields.done()
        if version != config.format_version:
            raise ConfigError(
                f"{where} is of format version {version}, but its tensors are of version "
                f"{config.format_version}."
            )
        return config

    def with_files(
        self, tensors: Mapping[str, TensorSpec], files: Mapping[str, str]
    ) -> AdapterConfig:
        """Return the config of an adapter that is stored in these tensors and files."""
        return replace(self, tensors=tensors, files=files)


def _show(value: object) -> str:
    """Show what somebody took for a figure or a setting."""
    if isinstance(value, int) and not isinstance(value, bool):
        return describe(value) if is_number(value) else "beyond 64 bits"
    return shorten(repr(value), 80)


def _render(value: Any, depth: int = 0) -> str:
    """Write JSON with one line for each site and tensor, so that a diff of adapters reads well."""
    nested = isinstance(value, dict) and any(isinstance(item, dict) for item in value.values())
    if not isinstance(value, dict) or not value or (depth >= 2 and not nested):
        return json.dumps(value, ensure_ascii=False)
    pad = "  " * (depth + 1)
    rows = ",\n".join(
        f"{pad}{json.dumps(key, ensure_ascii=False)}: {_render(item, depth + 1)}"
        for key, item in value.items()
    )
    return f"{{\n{rows}\n{'  ' * depth}}}"
