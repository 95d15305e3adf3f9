"""What a method leaves that trains no adapter: a folder that timm or PEFT reads.

Beside their files lie `gatehub.json`, which says what was trained and how, the log of the run and
its curve. A folder is replaced only by a run of the same task and method, and only where nothing
else lies in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatehub._disk import publish_folder
from gatehub._text import quote
from gatehub.adapter.folder import INFO_FILE
from gatehub.errors import AdapterExistsError

_MAX_INFO_BYTES = 4_000_000
_ATTACHMENTS = ("training.jsonl", "training.png")
_FILES = frozenset(
    {
        *(INFO_FILE, *_ATTACHMENTS),
        *("config.json", "model.safetensors"),
        *("adapter_config.json", "adapter_model.safetensors"),
    }
)


def check_product(folder: Path, *, task: str, force: bool, method: str) -> None:
    """Refuse a folder that holds anything but what a run of the same task and method left.

    Args:
        folder: where the run will write.
        task: its task.
        force: what a run of another task or method left may be replaced.
        method: how it trains.

    Raises:
        AdapterExistsError: something else is there.
        OSError: it cannot be looked at.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise AdapterExistsError(f"{quote(str(folder))} is a file; expected a folder or nothing.")
    present = sorted(folder.iterdir())
    if not present:
        return
    for path in present:
        if path.name not in _FILES or path.is_symlink() or not path.is_file():
            raise AdapterExistsError(
                f"{quote(str(folder))} holds {quote(path.name, 80)}, which would be lost; it is "
                "left as it is.",
                hint="Choose another folder, or move that away.",
            )
    found = _read_info(folder)
    if found is None:
        raise AdapterExistsError(
            f"{quote(str(folder))} holds something other than what method '{method}' leaves; it "
            "is left as it is.",
            hint="Choose another folder.",
        )
    if not force and found != (task, method):
        raise AdapterExistsError(
            f"{quote(str(folder))} holds task {quote(str(found[0]), 80)} by method "
            f"{quote(str(found[1]), 80)}; expected task '{task}' by '{method}', or none.",
            hint="Add --force (force=True) to replace it, or choose another folder.",
        )


def write_product(folder: Path, files: Mapping[str, bytes], info: Mapping[str, Any]) -> None:
    """Make a folder hold exactly these files and what is to be said of them.

    Raises:
        OSError: the disk refuses; what was there is there still.
    """
    said = json.dumps({"format": 1, **info}, indent=2, ensure_ascii=False) + "\n"
    publish_folder(folder, {**files, INFO_FILE: said.encode()})


def _read_info(folder: Path) -> tuple[object, object] | None:
    """Return task and method of what lies in a folder, None where it does not say them."""
    try:
        with (folder / INFO_FILE).open("rb") as file:
            info = json.loads(file.read(_MAX_INFO_BYTES))
        return info["task"], info["method"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
