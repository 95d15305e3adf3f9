"""Values that are made once for each key, by whichever thread asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Keeps what depends on its key alone.

    A value that is there is read at once. One that is not is made by the first thread that
    asks for it; others that want the same one wait, and those that want another do not.

    Args:
        limit: how many values to keep, the last ones used; None for all.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self._limit = limit
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
                value: T = self._values[key] if key in self._values else make()
                self._keep(key, value)
                return value
            finally:
                with self._guard:
                    self._making.pop(key, None)

    def _read(self, key: Hashable) -> Any:
        if self._limit is None:
            return self._values[key]  # without a lock
        with self._guard:
            value = self._values[key] = self._values.pop(key)
            return value

    def _keep(self, key: Hashable, value: object) -> None:
        with self._guard:
            self._values.setdefault(key, value)
            while self._limit is not None and len(self._values) > self._limit:
                del self._values[next(iter(self._values))]
