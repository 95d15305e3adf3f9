"""The sections of config.json, each read strictly into what it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gatehub.adapter._fields import Fields, describe, is_text
from gatehub.adapter.coding.packed import BITS, SIZES, TensorSpec
from gatehub.adapter.names import check_file_name, check_tensor_name
from gatehub.backbone import BackboneIdentity
from gatehub.backbone.images import IMAGE_RULES_VERSION, ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import ConfigError, FormatVersionError
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import GateLayout, SiteGate
from gatehub.gates.policy import NONE, read_policy
from gatehub.problem import MULTI_LABEL, Problem

MAX_DIMENSION = 2**24

_DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}", re.ASCII)


def read_backbone(fields: Fields) -> BackboneIdentity:
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


def read_layout(fields: Fields, norm: str, where: str) -> GateLayout:
    policy = fields.take("kind", str)
    read_policy(policy)
    start = fields.take_optional("start", str)
    entries = fields.take_fields("sites")
    fields.done()
    sites = {}
    for name in entries.names():
        check_tensor_name(f"{name}.gate", where)
        entry = entries.take_fields(name)
        kind = parse_kind(entry.take("kind", str))
        shape = _read_shape(entry)
        shift = entry.take("shift", bool) if "shift" in entry.names() else False
        entry.done()
        if len(shape) != 2:
            raise ConfigError(f"{entry.where}.shape is {list(shape)}; expected [O, I].")
        sites[name] = SiteGate(kind=kind, shape=(shape[0], shape[1]), shift=shift)
    if sites and policy == NONE:
        raise ConfigError(f"{entries.where} has {len(sites)} sites; expected none of kind {NONE}.")
    return GateLayout(policy=policy, start=start, norm=norm, sites=sites)


def read_preprocessing(fields: Fields) -> Preprocessing:
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
        # Adapters made before there were any have none.
        image_rules=(
            read_image_rules(fields.take_fields("image_rules"))
            if "image_rules" in fields.names()
            else None
        ),
    )
    fields.done()
    return preprocessing


def read_image_rules(fields: Fields) -> ImageRules:
    version = fields.take("version", int)
    if version > IMAGE_RULES_VERSION:
        raise FormatVersionError(
            f"{fields.where} is of version {describe(version)}; this gatehub knows up to "
            f"{IMAGE_RULES_VERSION}.",
            hint="Upgrade gatehub (pip install -U gatehub).",
        )
    colour = fields.take_list("background", int)
    fields.done()
    if len(colour) != 3:
        raise ConfigError(
            f"{fields.where}.background has {len(colour)} values; expected red, green and blue."
        )
    return ImageRules(version=version, background=(colour[0], colour[1], colour[2]))


def read_problem(fields: Fields) -> Problem:
    kind = fields.take("type", str)
    thresholds = fields.take_list("thresholds", float)
    fields.done()
    if kind != MULTI_LABEL:
        raise ConfigError(f"{fields.where}.type is {describe(kind)}; expected '{MULTI_LABEL}'.")
    return Problem(thresholds=thresholds)


def read_tensors(fields: Fields, where: str) -> dict[str, TensorSpec]:
    tensors = {}
    for name in fields.names():
        check_tensor_name(name, where)
        entry = fields.take_fields(name)
        dtype = entry.take("dtype", str)
        shape = _read_shape(entry)
        kept = entry.take("kept", int) if "kept" in entry.names() else None
        entry.done()
        if dtype not in (*SIZES, *BITS):
            raise ConfigError(
                f"{entry.where}.dtype is {describe(dtype)}; expected one of "
                f"{', '.join((*SIZES, *BITS))}."
            )
        tensors[name] = TensorSpec(dtype=dtype, shape=shape, kept=kept)
        if kept is not None and not 0 <= kept <= tensors[name].count:
            raise ConfigError(
                f"{entry.where}.kept is {describe(kept)}; expected 0 to {tensors[name].count}."
            )
    return tensors


def read_files(fields: Fields, where: str) -> dict[str, str]:
    files = {}
    for name in fields.names():
        check_file_name(name, where)
        files[name] = fields.take(name, str)
        _check_digest(files[name], f"{fields.where}.{name}")
    return files


def read_metrics(fields: Fields) -> dict[str, float]:
    check_setting_names(fields.names(), fields.where)
    return {name: fields.take(name, float) for name in fields.names()}


def read_training(fields: Fields) -> dict[str, str | int | float | bool | None]:
    check_setting_names(fields.names(), fields.where)
    return {name: fields.take_scalar(name) for name in fields.names()}


def check_setting_names(names: Iterable[str], where: str) -> None:
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
