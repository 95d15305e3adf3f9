"""The root of every error that gatehub raises on purpose."""

from __future__ import annotations


class GatehubError(Exception):
    """Root of every error that gatehub raises on purpose.

    Attributes:
        message: one sentence: what, where, got, expected.
        hint: what to do next, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"
