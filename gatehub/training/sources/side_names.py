"""Which side of a split a name stands for: train, Training, seg_train; valid, dev; testing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from gatehub.training.sources.pictures import Side

_WORDS: dict[str, Side] = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "valset"), "val"),
    **dict.fromkeys(("dev", "devset"), "val"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
# What says nothing about which split it is: train_images and test are one split.
_FILLERS = frozenset(
    {"data", "dataset", "folder", "image", "images", "img", "imgs", "photos", "set", "split"}
)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]+")

Split = dict[Side, list[str]]


def find_side(name: str) -> tuple[Side, frozenset[str]] | None:
    """Return the side that one of a name's words stands for, and its other words.

    None if no word does, or several do that contradict each other.
    """
    words = {word.lower() for word in _WORD.findall(name)}
    sides = {_WORDS[word] for word in words if word in _WORDS}
    if len(sides) != 1:
        return None
    return sides.pop(), frozenset(words - _WORDS.keys() - _FILLERS)


def find_splits(names: Iterable[str]) -> list[Split]:
    """Group names into splits: those whose other words agree, so seg_train goes with seg_test.

    A group of one side is a split only if its names have no other words: `freight_train` alone is
    as likely a class.
    """
    groups: defaultdict[frozenset[str], Split] = defaultdict(dict)
    for name in names:
        if (found := find_side(name)) is not None:
            groups[found[1]].setdefault(found[0], []).append(name)
    return [split for rest, split in groups.items() if len(split) > 1 or not rest]
