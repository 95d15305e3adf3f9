"""What a card calls the backbone, the data and the adapter gone on from, for anybody to find."""

from __future__ import annotations

import re

from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.trained_on import read_sources

_DATA_SET = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def name_base_model(config: AdapterConfig) -> str | None:
    """Name the backbone's repository on the Hub, if it has one."""
    backbone = config.backbone
    if backbone.source == "timm":
        return f"timm/{backbone.name}"
    kind, _, repository = backbone.source.partition(":")
    return repository if kind == "hf-hub" else None


def name_backbone(config: AdapterConfig) -> str:
    """Name the backbone as `--backbone` and `load_backbone` take it.

    Of a folder the last name only, since cards are published.
    """
    kind = config.backbone.source.partition(":")[0]
    known = kind in ("demo", "hf-hub", "local-dir")
    return name_network(config.backbone.source if known else config.backbone.name)


def name_network(name: str) -> str:
    """Name a network as `load_backbone` takes it, of a folder the last name only."""
    kind, _, place = name.partition(":")
    return f"local-dir:{last_name(place)}" if kind == "local-dir" else name


def name_data(config: AdapterConfig) -> dict[str, str]:
    """What each source of the data is called, without its place on a machine, by its setting."""
    return {setting: _name(data) for setting, data in read_sources(config.training).items()}


def _name(data: str) -> str:
    if data.startswith("hf:"):  # a data set of Hugging Face's; a folder is known by its last name
        name = data.removeprefix("hf:")
        return data if _DATA_SET.fullmatch(name) else f"hf:{last_name(name)}"
    return last_name(data) or data


def name_origin(config: AdapterConfig) -> str | None:
    """What the adapter that this one went on from is called, without its place on a machine."""
    name = config.training.get("init_from")
    if not isinstance(name, str) or not name:
        return None
    return name if _HUB_NAME.fullmatch(name) else last_name(name) or name


def last_name(path: str) -> str:
    """The last name of a path, of whichever system it is."""
    names = [name for name in re.split(r"[\\/]+", re.sub(r"^[A-Za-z]:", "", path)) if name]
    return names[-1] if names and names[-1] not in (".", "..") else ""
