"""A backbone that cannot be had, and gates that cannot be attached to it."""

from __future__ import annotations

from gatehub.errors._root import GatehubError


class BackboneError(GatehubError, ValueError):
    """A backbone cannot be had."""


class BackboneNotFoundError(BackboneError):
    """No backbone of that name, tag, file or repository."""


class BackboneChangedError(BackboneError):
    """A backbone's weights, layers or settings are not those that were loaded any more."""


class UnsafeWeightsError(BackboneError):
    """The weights exist only as a pickle, which can run code when it is read."""


class DeviceError(GatehubError, ValueError):
    """A device that is not there, or cannot be used."""


class GateError(GatehubError, ValueError):
    """Gates cannot be attached or folded."""


class GateKindError(GateError):
    """No gate kind of that name."""


class AlreadyGatedError(GateError):
    """The model already carries gates; a second set would multiply with the first."""


class EmbeddingError(GateError):
    """A network that is no stack of feed-forward layers."""


class SiteError(GateError):
    """A layer or stage that the backbone lacks, or a gate that does not fit it."""


class UngatedLayerWarning(UserWarning):
    """A backbone has layers that no gate reaches, so a task leaves them as they are."""
