"""What training writes, known by its content wherever it lies: it is never data."""

from __future__ import annotations

import re
from collections.abc import Collection

from gatehub.adapter.folder import CONFIG_FILE, INFO_FILE, TENSORS_FILE
from gatehub.training.checkpoint import CHECKPOINT_FILE, TRIALS_FILE

LOCK_FILE, HOLDER_FILE = "lock", "holder"
STATE_FILES = frozenset({CHECKPOINT_FILE, TRIALS_FILE, LOCK_FILE, HOLDER_FILE})
LOG_PREFIX = "events.out.tfevents."  # TensorBoard reads what is called so, in order of the names


def is_state(name: str) -> bool:
    """Whether something in the folder of a run's state may be a run's, or a search's."""
    return name in STATE_FILES or re.fullmatch(r"trial-[0-9]+(\.training)?", name) is not None


def is_product(files: Collection[str]) -> bool:
    """Whether a folder is what a run left, or holds the state of one or logs of TensorBoard's.

    Args:
        files: the names of the files in it that are not hidden.
    """
    names = set(files)
    if {CONFIG_FILE, TENSORS_FILE} <= names or INFO_FILE in names:
        return True
    is_log = all(name.startswith(LOG_PREFIX) for name in names)
    return names != set() and (names <= STATE_FILES or is_log)
