"""Where an adapter's folder is: here, or on a hub.

An adapter may be named by its folder or by its name on a hub wherever it is loaded. The hub
stands above the rooms that load, so none of them imports it: the top of the package, whose
table of public names points to every floor, hands the hub's `pull` down to here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from gatehub.errors import HubError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w.-]*)?", re.ASCII)

_pull: Callable[[str], Path] | None = None


def set_pull(pull: Callable[[str], Path]) -> None:
    """Say how an adapter is fetched from a hub by `org/name[@revision]`."""
    global _pull
    _pull = pull


def find_folder(place: str | Path, *, pull: Callable[[str], Path] | None = None) -> Path:
    """The folder that a place names, fetched from a hub if need be.

    Args:
        place: a folder, or as a string also `org/name` or `org/name@revision` on a hub. What
            exists here is taken for a folder.
        pull: how it is fetched; None fetches from the hub that the environment names.

    Raises:
        HubError: it is not a folder here, and the hub cannot give it; or one of its subclasses.
    """
    pull = pull or _pull
    if pull is None or isinstance(place, Path) or not _HUB_NAME.fullmatch(place):
        return Path(place)
    if os.path.lexists(place):
        return Path(place)
    try:
        return pull(place)
    except HubError as error:  # the name may as well be a folder's, misspelt
        error.message = f"'{place}' is not a folder here. {error.message}"
        raise
