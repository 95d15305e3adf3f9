"""What training writes, known by its content wherever it lies: it is never data."""

from __future__ import annotations

from collections.abc import Collection

from gatehub.adapter.folder import CONFIG_FILE, TENSORS_FILE
from gatehub.training.checkpoint import CHECKPOINT_FILE

LOCK_FILE, HOLDER_FILE = "lock", "holder"
STATE_FILES = frozenset({CHECKPOINT_FILE, LOCK_FILE, HOLDER_FILE})


def is_product(files: Collection[str]) -> bool:
    """Whether a folder is an adapter's, or holds the state of a run.

    Args:
        files: the names of the files in it that are not hidden.
    """
    names = set(files)
    return {CONFIG_FILE, TENSORS_FILE} <= names or (names != set() and names <= STATE_FILES)
