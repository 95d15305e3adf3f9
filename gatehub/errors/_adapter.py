"""An adapter that cannot be used."""

from __future__ import annotations

from gatehub.errors._root import GatehubError


class AdapterError(GatehubError, ValueError):
    """An adapter cannot be used."""


class AdapterFormatError(AdapterError):
    """A folder that is not a sound adapter."""


class MissingFileError(AdapterFormatError, FileNotFoundError):
    """A file of the format is not there."""


class PointerFileError(AdapterFormatError):
    """A file is a git-lfs pointer, as a clone without git-lfs has it."""


class UnexpectedFileError(AdapterFormatError):
    """Something lies in the folder that may run, or in the place of a file."""


class CorruptTensorsError(AdapterFormatError):
    """The tensor file is truncated, overlong or malformed."""


class HeaderTooLargeError(AdapterFormatError):
    """The tensor file announces a header over the limit."""


class DuplicateKeyError(AdapterFormatError):
    """A JSON object holds one key twice."""


class UnsafeNameError(AdapterFormatError):
    """A name that could be taken for a path."""


class UnknownTensorError(AdapterFormatError):
    """The tensor file holds a tensor that the config does not declare."""


class MissingTensorError(AdapterFormatError):
    """The config declares a tensor that the tensor file lacks."""


class TensorShapeError(AdapterFormatError):
    """A tensor has another shape than it must have."""


class TensorDtypeError(AdapterFormatError):
    """A tensor has another dtype than it must have."""


class NonFiniteTensorError(AdapterFormatError):
    """A tensor holds NaN or infinity."""


class NegativeVarianceError(AdapterFormatError):
    """A running variance below 0."""


class DigestMismatchError(AdapterFormatError):
    """A file's bytes are not the ones whose digest the config names."""


class ConfigError(AdapterFormatError):
    """config.json has unknown, missing or ill-typed fields."""


class FormatVersionError(AdapterFormatError):
    """The adapter is of a newer format than this gatehub reads."""


class AdapterExistsError(AdapterError, FileExistsError):
    """Saving or pulling would overwrite something else."""


class BackboneMismatchError(AdapterError):
    """The adapter was trained on another backbone than the one at hand."""


class SelfCheckError(AdapterError):
    """A task does not answer its probe here as it did where it was made."""


class ExtraFilesWarning(UserWarning):
    """An adapter's folder holds files that no adapter has; they are left alone."""
