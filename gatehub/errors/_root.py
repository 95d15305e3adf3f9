"""The root of every error that gatehub raises on purpose."""

from __future__ import annotations

from gatehub._text import printable


class GatehubError(Exception):
    """Root of every error that gatehub raises on purpose.

    Whatever a message quotes, it can be shown on a terminal; see `gatehub._text.printable`.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def message(self) -> str:
        """One sentence: what, where, got, expected."""
        return self._message

    @message.setter
    def message(self, message: str) -> None:
        self._message = printable(message)

    @property
    def hint(self) -> str | None:
        """What to do next, or None."""
        return self._hint

    @hint.setter
    def hint(self, hint: str | None) -> None:
        self._hint = None if hint is None else printable(hint)

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"
