"""Values that are made once for each key, by whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

T = TypeVar("T")
_MISSING = object()


class Memo:
    """Keeps what depends on its key alone.

    A value that is there is read at once. One that is not is made by the first thread that
    asks for it; others that want the same one wait, and those that want another do not.

    Args:
        limit: how many values to keep, the last ones used; None for all.
        gone: called whenever one had to go for that.
    """

    def __init__(
        self, *, limit: int | None = None, gone: Callable[[], None] = lambda: None
    ) -> None:
        self._limit, self._gone = limit, gone
        self._values: dict[Hashable, Any] = {}
        self._making: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key; `make` makes it, and may fail, and is then tried again."""
        try:
            return self._read(key)  # type: ignore[no-any-return]
        except KeyError:
            pass
        with self._guard:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            try:
                # Another thread may have made it meanwhile, and a third have pushed it out again.
                found = self._values.get(key, _MISSING)
                value: T = make() if found is _MISSING else cast(T, found)
                if self._keep(key, value):
                    self._gone()
                return value
            finally:
                with self._guard:
                    self._making.pop(key, None)

    def values(self) -> list[Any]:
        """Return what is kept at this moment."""
        with self._guard:
            return list(self._values.values())

    def keep(self, wanted: Callable[[Any], bool]) -> None:
        """Let go of values whose keys are not wanted."""
        with self._guard:
            for key in [key for key in self._values if not wanted(key)]:
                del self._values[key]

    def _read(self, key: Hashable) -> Any:
        if self._limit is None:
            return self._values[key]  # without a lock
        with self._guard:
            value = self._values[key] = self._values.pop(key)
            return value

    def _keep(self, key: Hashable, value: object) -> bool:
        """Keep a value; say whether another had to go."""
        with self._guard:
            self._values.setdefault(key, value)
            excess = 0 if self._limit is None else len(self._values) - self._limit
            for first in list(self._values)[: max(0, excess)]:
                del self._values[first]
            return excess > 0
