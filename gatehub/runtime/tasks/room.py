"""What has to go so that wanted values fit, and what stands in for those that do not.

All of this only looks: it is for whoever holds the lock of the tier to carry out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from gatehub.runtime.tasks.entries import Entry, Wanted

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room(Generic[V]):
    """How wanted values can be taken.

    Args:
        taken: by the key of each wanted value, the key of what is taken: the same, or that of
            another value of its group.
        going: what has to go.
    """

    taken: Mapping[Hashable, Hashable]
    going: Collection[Entry[V]]


def find_room(
    wanted: Mapping[Hashable, Wanted[V]],
    entries: Mapping[Hashable, Entry[V]],
    pins: Collection[Hashable],
    free: float,
    *,
    sparing: bool = False,
) -> Room[V] | None:
    """Find room for values, the least used of the others first to go.

    Where there is too little, missing values of pinned groups are replaced by others of the group
    that are there, as few as are needed. What is not pinned is worth waiting for.

    Args:
        wanted: by key.
        entries: all that is there or in the making, by key.
        pins: groups that are pinned.
        free: bytes that are left of the budget, below zero where it is exceeded.
        sparing: whether to replace all that can be, so that the least has to be made.

    Returns:
        None where there is no room at this moment.
    """
    taken = {key: key for key in wanted}
    lacking = sum(want.bytes for key, want in wanted.items() if key not in entries) - free
    if lacking <= 0 and not sparing:
        return Room(taken=taken, going=())
    idle = list_idle(_by_use(entries.values()), pins, keep=wanted)
    short = lacking - sum(entry.bytes for entry in idle)
    may_go = set(idle)
    for want, other in find_stand_ins(wanted, entries, pins):
        missing = want.key not in entries
        if sparing or (missing and short > 0):
            taken[want.key] = other.key
            lacking -= want.bytes if missing else 0
            short -= want.bytes - (other.bytes if other in may_go else 0)
    going = []
    for entry in list_idle(_by_use(entries.values()), pins, keep=set(taken.values())):
        if lacking <= 0:
            break
        going.append(entry)
        lacking -= entry.bytes
    return None if lacking > 0 else Room(taken=taken, going=going)


def find_stand_ins(
    wanted: Mapping[Hashable, Wanted[V]],
    entries: Mapping[Hashable, Entry[V]],
    pins: Collection[Hashable],
) -> list[tuple[Wanted[V], Entry[V]]]:
    """Return what is not there of pinned groups, each with what is: the last one that was used."""
    found, lasting = [], _find_lasting(entries.values(), pins)
    for key, want in wanted.items():
        entry, other = entries.get(key), lasting.get(want.group)
        if (entry is None or not entry.ready) and other is not None and other.ready:
            found.append((want, other))
    return found


def list_idle(
    entries: Iterable[Entry[V]], pins: Collection[Hashable], *, keep: Collection[Hashable] = ()
) -> list[Entry[V]]:
    """Return what may go: what nobody uses, but the last one that is ready of a pinned group.

    Args:
        entries: all of them, what is best to go first.
        pins: groups that are pinned.
        keep: keys of what stays.
    """
    entries = list(entries)
    left = Counter(entry.group for entry in entries if entry.ready and entry.group in pins)
    idle = []
    for entry in entries:
        if entry.leases or entry.key in keep or left[entry.group] == 1:
            continue
        if entry.group in pins:
            left[entry.group] -= 1
        idle.append(entry)
    return idle


def count_least(
    wanted: Mapping[Hashable, Wanted[V]],
    entries: Mapping[Hashable, Entry[V]],
    pins: Collection[Hashable],
) -> tuple[int, int]:
    """Return how many bytes are needed whatever goes, and how many others keep whatever comes.

    Args:
        wanted: as for `find_room`, as are the others.
        entries: by key.
        pins: groups that are pinned.
    """
    needed = {key: want.bytes for key, want in wanted.items()}
    for want, other in find_stand_ins(wanted, entries, pins):
        if want.key not in entries:
            del needed[want.key]
            needed[other.key] = other.bytes
    groups, lasting = (
        {want.group for want in wanted.values()},
        _find_lasting(entries.values(), pins),
    )
    kept = sum(entry.bytes for group, entry in lasting.items() if group not in groups)
    return sum(needed.values()), kept


def _by_use(entries: Iterable[Entry[V]]) -> list[Entry[V]]:
    return sorted(entries, key=lambda entry: entry.used)


def _find_lasting(
    entries: Iterable[Entry[V]], pins: Collection[Hashable]
) -> dict[Hashable, Entry[V]]:
    """Return what stays of each pinned group whatever comes: what is ready, and was used last."""
    ranked = sorted(entries, key=lambda entry: (entry.ready, entry.used))
    return {entry.group: entry for entry in ranked if entry.group in pins}


def join_names(distinct: Mapping[Hashable, Wanted[V]]) -> str:
    """Return the names of what is wanted, three at most."""
    names = [want.name for want in distinct.values()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def begin(name: str) -> str:
    """Begin a sentence with a name, whose own capitals stay."""
    return name[:1].upper() + name[1:]
