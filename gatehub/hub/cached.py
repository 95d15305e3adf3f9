"""The adapters in the cache: what can be used without any hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gatehub.errors import AdapterError
from gatehub.hub.cache import cached_adapters
from gatehub.hub.protocol import ListedAdapter, Report


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAdapter:
    """One adapter in the cache.

    Attributes:
        adapter: what it is; its revision is its commit.
        hub: the hub's part of the cache.
        folder: where it lies.
    """

    adapter: ListedAdapter
    hub: str
    folder: Path


def list_cached(report: Report) -> list[CachedAdapter]:
    """Every adapter in the cache, by hub and name.

    Args:
        report: told of each folder that is no sound adapter.
    """
    # Loads torch, which nothing else in this package needs.
    from gatehub.adapter.card import name_backbone
    from gatehub.adapter.files import TENSORS_FILE, verify_adapter

    rows = []
    for hub, repo, folder in cached_adapters():
        try:
            config = verify_adapter(folder)
        except AdapterError as error:
            report(f"{repo} in the cache is left out: {error.message}")
            continue
        rows.append(
            CachedAdapter(
                adapter=ListedAdapter(
                    repo=repo,
                    revision=folder.name,
                    commit=folder.name,
                    task=config.task,
                    classes=len(config.labels),
                    backbone=name_backbone(config),
                    gates=config.layout.policy,
                    bytes=(folder / TENSORS_FILE).stat().st_size,
                    accuracy=config.metrics.get("accuracy"),
                    updated="",
                ),
                hub=hub,
                folder=folder,
            )
        )
    return rows
