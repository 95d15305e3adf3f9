"""How an adapter remembers the data it was trained on: a setting for each source that was given.

They are called "data", "data_2" and so on. A setting is one line of text, and a push cuts each to
its last name (see `privacy`), so several sources have several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile


def write_sources(sources: Sequence[str]) -> dict[str, str]:
    """Return the settings that remember sources."""
    return dict(zip(_list_names(), sources, strict=False))


def read_sources(training: Mapping[str, object]) -> dict[str, str]:
    """Return the settings that remember sources, as far as they are there."""
    pairs = ((name, training.get(name)) for name in _list_names())
    known = takewhile(lambda pair: bool(pair[1]) and isinstance(pair[1], str), pairs)
    return {name: str(source) for name, source in known}


def _list_names() -> Iterator[str]:
    yield "data"
    yield from (f"data_{number}" for number in count(2))
