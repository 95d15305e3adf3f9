"""Files that may be pickles, by their names: reading one can run code, so none is ever read."""

from __future__ import annotations

# What torch, scikit-learn and numpy write; a .tar is the first form of a torch checkpoint.
_ENDINGS = (
    ".bin",
    ".ckpt",
    ".joblib",
    ".npy",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".tar",
)


def is_pickle(name: str) -> bool:
    """Whether a file of this name may be a pickle."""
    return name.lower().endswith(_ENDINGS)
