"""What a push does not publish: paths of the machine on which an adapter was trained.

A backbone from a file or a folder is remembered by its path, and so is a folder of images.
On a hub these would tell strangers about the machine and help nobody. Only their last name
goes there. The digest still binds the adapter to the backbone's weights, wherever the one
who pulls it has them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatehub.adapter.config import AdapterConfig


@contextmanager
def without_paths(
    folder: Path, config: AdapterConfig
) -> Iterator[tuple[Path, AdapterConfig, list[str]]]:
    """The folder as it may be published: itself, or a copy with paths cut to their last name.

    Args:
        folder: a sound adapter.
        config: its config.

    Yields:
        The folder to publish, its config, and what was cut.
    """
    from gatehub.adapter.card import last_name
    from gatehub.adapter.folder import ADAPTER_FILES, CARD_FILE, CONFIG_FILE

    kind, _, place = config.backbone.source.partition(":")
    found = {place} if kind in ("file", "local-dir") and _is_path(place) else set[str]()
    found |= {v for v in config.training.values() if isinstance(v, str) and _is_path(v)}
    if not found:
        yield folder, config, []
        return
    short = {path: last_name(path) or "unnamed" for path in found}
    source = f"{kind}:{short[place]}" if place in short else config.backbone.source
    published = replace(
        config,
        backbone=replace(config.backbone, source=source),
        training={
            k: short.get(v, v) if isinstance(v, str) else v for k, v in config.training.items()
        },
    )
    with TemporaryDirectory(prefix="gatehub-push-") as temporary:
        copy = Path(temporary)
        for name in ADAPTER_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, copy / name)
        (copy / CONFIG_FILE).write_bytes(published.to_json())
        card = (copy / CARD_FILE).read_text("utf-8", "replace")
        for path in sorted(found, key=len, reverse=True):
            card = card.replace(path, short[path])
        (copy / CARD_FILE).write_text(card, "utf-8", newline="")
        yield copy, published, sorted(found)


def _is_path(text: str) -> bool:
    """Whether a text is a path that says where on a machine something lies."""
    if "://" in text:
        return text.startswith("file://")
    return PurePosixPath(text).is_absolute() or bool(PureWindowsPath(text).drive)
