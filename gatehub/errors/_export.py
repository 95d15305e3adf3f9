"""A model that cannot be exported."""

from __future__ import annotations

import math

from gatehub.errors._root import GatehubError


class ExportError(GatehubError):
    """A model cannot be exported."""


class ExportFormatError(ExportError, ValueError):
    """A file that is not ONNX, not one of gatehub's, or that ONNX Runtime cannot run."""


class ExportIntegrityError(ExportError):
    """An exported file that was edited: what it says of itself, a weight, or a node."""


class ParityError(ExportError):
    """The exported model answers differently from the folded one.

    Attributes:
        max_abs_diff: largest absolute difference of a logit; infinite where there is none.
        max_rel_diff: that, divided by the largest logit.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        max_abs_diff: float = math.inf,
        max_rel_diff: float = math.inf,
    ) -> None:
        super().__init__(message, hint=hint)
        self.max_abs_diff = max_abs_diff
        self.max_rel_diff = max_rel_diff
