"""config.json of an adapter: what it says, written and read strictly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gatehub.adapter._fields import Fields, describe, is_text, parse_json
from gatehub.backbone import BackboneIdentity
from gatehub.errors import (
    ConfigError,
    FormatVersionError,
    GatehubError,
    UnsafeNameError,
)
from gatehub.gates.kinds import AUTO, parse_kind
from gatehub.gates.layout import GateLayout, SiteGate
from gatehub.preprocessing import Preprocessing

FORMAT_VERSION = 1
TASK_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
MAX_DIMENSION = 2**24

_TENSOR_PATTERN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", re.ASCII)
_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DTYPES = ("F16", "BF16", "F32")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """How one tensor is stored.

    Args:
        dtype: "F16", "BF16" or "F32", as safetensors writes it.
        shape: its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]


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

    Raises:
        UnsafeNameError: the task's name could be taken for a path.
        ConfigError: no labels, or two alike, or one that is no line of text; a metric that is no
            finite number; a setting that is no single value.
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

    def __post_init__(self) -> None:
        check_task_name(self.task)
        if not self.labels or len(set(self.labels)) != len(self.labels) or "" in self.labels:
            raise ConfigError(
                f"Adapter '{self.task}' has {len(self.labels)} labels, "
                f"{len(set(self.labels) - {''})} of them named and distinct; "
                "expected at least one, all named, all distinct."
            )
        for label in self.labels:
            if not is_text(label):
                raise ConfigError(
                    f"Adapter '{self.task}' has the label {describe(label)}; expected one line of "
                    "text."
                )
        _check_setting_names((*self.metrics, *self.training), f"Adapter '{self.task}'")
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value):
                raise ConfigError(
                    f"Adapter '{self.task}' has the metric '{name}' {value!r}; expected a finite "
                    "number."
                )
        for name, setting in self.training.items():
            if not isinstance(setting, str | int | float | None) or not _finite(setting):
                raise ConfigError(
                    f"Adapter '{self.task}' has the training setting '{name}' {setting!r}; "
                    "expected a string, a finite number, true, false or None."
                )

    def to_json(self) -> bytes:
        """Return config.json: UTF-8, indented, one line for each site and tensor."""
        gates = self.layout
        value = {
            "format_version": FORMAT_VERSION,
            "task": self.task,
            "labels": list(self.labels),
            "backbone": asdict(self.backbone),
            "gates": {
                "kind": gates.policy,
                "start": gates.start,
                "sites": {
                    name: {"kind": str(gate.kind), "shape": list(gate.shape)}
                    for name, gate in gates.sites.items()
                },
            },
            "norm": gates.norm,
            "preprocessing": asdict(self.preprocessing),
            "metrics": {name: float(value) for name, value in self.metrics.items()},
            "training": dict(self.training),
            "tensors": {
                name: {"dtype": spec.dtype, "shape": list(spec.shape)}
                for name, spec in self.tensors.items()
            },
            "files": dict(self.files),
        }
        return (_render(value) + "\n").encode()

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
                f"{where} is of format version {version}; this gatehub reads up to "
                f"{FORMAT_VERSION}.",
                hint="Upgrade gatehub (pip install -U gatehub).",
            )
        if version < 1:
            raise ConfigError(f"{where} is of format version {version}; there is none below 1.")
        try:
            config = cls(
                task=fields.take("task", str),
                labels=fields.take_list("labels", str),
                backbone=_read_backbone(fields.take_fields("backbone")),
                layout=_read_layout(fields.take_fields("gates"), fields.take("norm", str), where),
                preprocessing=_read_preprocessing(fields.take_fields("preprocessing")),
                metrics=_read_metrics(fields.take_fields("metrics")),
                training=_read_training(fields.take_fields("training")),
                tensors=_read_tensors(fields.take_fields("tensors"), where),
                files=_read_files(fields.take_fields("files"), where),
            )
        except ConfigError:
            raise
        except GatehubError as error:
            if isinstance(error, UnsafeNameError):
                raise
            raise ConfigError(f"{where}: {error.message}") from error
        fields.done()
        return config

    def with_files(
        self, tensors: Mapping[str, TensorSpec], files: Mapping[str, str]
    ) -> AdapterConfig:
        """Return the config of an adapter that is stored in these tensors and files."""
        return replace(self, tensors=tensors, files=files)


def check_task_name(name: str) -> None:
    """Refuse a task name that is not fit for a file, a URL and a shell.

    Raises:
        UnsafeNameError: it has other characters, or is too long.
    """
    if TASK_PATTERN.fullmatch(name) is None:
        raise UnsafeNameError(
            f"{name[:100]!r} is no task name; expected letters, digits, '.', '_' and '-', "
            "at most 96, the first a letter or a digit."
        )


def _read_backbone(fields: Fields) -> BackboneIdentity:
    identity = BackboneIdentity(
        architecture=fields.take("architecture", str),
        tag=fields.take("tag", str),
        source=fields.take("source", str),
        revision=fields.take_optional("revision", str),
        digest=fields.take("digest", str),
    )
    fields.done()
    if not identity.architecture:
        raise ConfigError(f"{fields.where}.architecture is empty; expected a name.")
    _check_digest(identity.digest, f"{fields.where}.digest")
    return identity


def _read_layout(fields: Fields, norm: str, where: str) -> GateLayout:
    policy = fields.take("kind", str)
    if policy != AUTO:
        parse_kind(policy)
    start = fields.take_optional("start", str)
    entries = fields.take_fields("sites")
    fields.done()
    sites = {}
    for name in entries.names():
        check_tensor_name(f"{name}.gate", where)
        entry = entries.take_fields(name)
        kind = parse_kind(entry.take("kind", str))
        shape = _read_shape(entry)
        entry.done()
        if len(shape) != 2:
            raise ConfigError(f"{entry.where}.shape is {list(shape)}; expected [O, I].")
        sites[name] = SiteGate(kind=kind, shape=(shape[0], shape[1]))
    return GateLayout(policy=policy, start=start, norm=norm, sites=sites)


def _read_preprocessing(fields: Fields) -> Preprocessing:
    size = fields.take_list("input_size", int)
    mean, std = fields.take_list("mean", float), fields.take_list("std", float)
    if not len(size) == len(mean) == len(std) == 3:
        raise ConfigError(
            f"{fields.where} has {len(size)} sizes, {len(mean)} means and {len(std)} deviations; "
            "expected 3 of each."
        )
    preprocessing = Preprocessing(
        input_size=(size[0], size[1], size[2]),
        mean=mean,
        std=std,
        interpolation=fields.take("interpolation", str),
        crop_pct=fields.take("crop_pct", float),
        crop_mode=fields.take("crop_mode", str),
    )
    fields.done()
    return preprocessing


def _read_tensors(fields: Fields, where: str) -> dict[str, TensorSpec]:
    tensors = {}
    for name in fields.names():
        check_tensor_name(name, where)
        entry = fields.take_fields(name)
        dtype = entry.take("dtype", str)
        shape = _read_shape(entry)
        entry.done()
        if dtype not in _DTYPES:
            raise ConfigError(
                f"{entry.where}.dtype is {describe(dtype)}; expected one of {', '.join(_DTYPES)}."
            )
        tensors[name] = TensorSpec(dtype=dtype, shape=shape)
    return tensors


def _read_files(fields: Fields, where: str) -> dict[str, str]:
    files = {}
    for name in fields.names():
        check_file_name(name, where)
        files[name] = fields.take(name, str)
        _check_digest(files[name], f"{fields.where}.{name}")
    return files


def _read_metrics(fields: Fields) -> dict[str, float]:
    _check_setting_names(fields.names(), fields.where)
    return {name: fields.take(name, float) for name in fields.names()}


def _read_training(fields: Fields) -> dict[str, str | int | float | bool | None]:
    _check_setting_names(fields.names(), fields.where)
    return {name: fields.take_scalar(name) for name in fields.names()}


def _check_setting_names(names: Iterable[str], where: str) -> None:
    for name in names:
        if not is_text(name) or len(name) > 256:
            raise ConfigError(
                f"{where} has the name {describe(name)}; expected a line of text, at most 256 "
                "characters."
            )


def _read_shape(fields: Fields) -> tuple[int, ...]:
    shape = fields.take_list("shape", int)
    if not all(1 <= size <= MAX_DIMENSION for size in shape) or len(shape) > 4:
        raise ConfigError(
            f"{fields.where}.shape is {', '.join(map(describe, shape[:5]))}; expected up to 4 "
            f"sizes from 1 to {MAX_DIMENSION}."
        )
    return shape


def _check_digest(digest: str, where: str) -> None:
    if _DIGEST_PATTERN.fullmatch(digest) is None:
        raise ConfigError(f"{where} is {describe(digest)}; expected 64 hex digits.")


def _finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def check_tensor_name(name: str, where: str) -> None:
    """Refuse a tensor name that is not dotted identifiers.

    Raises:
        UnsafeNameError: it is something else, such as a path.
    """
    if _TENSOR_PATTERN.fullmatch(name) is None or len(name) > 256:
        raise UnsafeNameError(
            f"{where} names a tensor {name[:100]!r}; expected dotted identifiers, "
            "such as 'layer1.0.conv1.gate'."
        )


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that could lead out of the folder.

    Raises:
        UnsafeNameError: it is a path, hidden, or has unusual characters.
    """
    if TASK_PATTERN.fullmatch(name) is None:
        raise UnsafeNameError(
            f"{where} names a file {name[:100]!r}; expected a plain name without a folder."
        )


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
