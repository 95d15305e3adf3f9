"""Everything gatehub raises on purpose.

Each error says in one sentence what is wrong, where, what was found and what was
expected; `hint` says what to do next. A builtin stands as second base where callers
already catch it.

    GatehubError
    ├── BackboneError                       a backbone cannot be had
    │   ├── BackboneNotFoundError           no such name, tag, file or repository
    │   └── UnsafeWeightsError              only a pickle is offered
    ├── DeviceError                         no such device here
    ├── GateError                           gates cannot be attached or folded
    │   ├── GateKindError                   no such gate kind
    │   ├── AlreadyGatedError               the model already carries gates
    │   └── SiteError                       a layer or stage that is not there, or does not fit
    ├── AdapterError
    │   ├── AdapterFormatError              a folder that is not a sound adapter
    │   │   ├── MissingFileError            a file of the format is not there
    │   │   ├── UnexpectedFileError         a file that the format does not know
    │   │   ├── CorruptTensorsError         truncated, overlong or malformed safetensors
    │   │   ├── HeaderTooLargeError         a tensor header over the limit
    │   │   ├── DuplicateKeyError           a JSON key that stands twice
    │   │   ├── UnsafeNameError             a name that could be a path
    │   │   ├── UnknownTensorError          a tensor that the config does not declare
    │   │   ├── MissingTensorError          a tensor that the config declares and the file lacks
    │   │   ├── TensorShapeError            another shape than declared
    │   │   ├── TensorDtypeError            another dtype than declared, or one never stored
    │   │   ├── NonFiniteTensorError        NaN or infinity
    │   │   ├── DigestMismatchError         bytes that are not the ones the config names
    │   │   ├── ConfigError                 unknown, missing or ill-typed fields
    │   │   └── FormatVersionError          a newer format than this gatehub reads
    │   ├── AdapterExistsError              saving would overwrite something else
    │   ├── BackboneMismatchError           another backbone than the adapter was trained on
    │   └── SelfCheckError                  other answers here than where the adapter was made
    ├── DataError                           training or evaluation data that cannot be used
    │   ├── UnreadableImageError            images that cannot be decoded
    │   └── LabelMismatchError              classes that differ from the adapter's
    ├── TrainingError
    │   └── ResumeError                     a checkpoint that cannot be continued
    ├── HubError
    │   ├── HubNameError                    a repository name or revision that is not valid
    │   ├── RepositoryNotFoundError         no such repository on the hub
    │   ├── RevisionNotFoundError           no such revision of it
    │   ├── HubFileNotFoundError            no such file in the repository
    │   ├── HubAccessError                  gated, private, or a token that does not do
    │   ├── HubUnreachableError             no answer, or none that says anything
    │   │   └── HubBusyError                too many requests, or the hub is overloaded
    │   ├── HubConflictError                somebody else pushed first
    │   │   └── HubTagError                 the tag names another commit
    │   └── HubIntegrityError               stored bytes differ from their digest
    ├── EngineError
    │   ├── ExecutionError                  a backbone whose operations cannot be replayed
    │   ├── MemoryBudgetError               a task that does not fit the memory it may take
    │   ├── TaskUnavailableError            a task that is known and cannot be had just now
    │   ├── QueueFullError                  as many requests wait as may
    │   ├── DeadlineError                   an answer that would come too late
    │   ├── TaskNotFoundError               no task of that name is loaded
    │   └── InputError                      an input of the wrong shape, dtype or size
    │       └── ImageTooLargeError          an image of more pixels than the limit
    ├── ServerError                         the server cannot start, or refuses a request
    │   ├── RequestError                    a request that cannot be understood
    │   │   ├── BodyTooLargeError           more bytes than the limit
    │   │   └── BodyTimeoutError            bytes that do not arrive in time
    │   └── ServerBusyError                 as many requests wait as may
    └── ExportError
        ├── ExportFormatError               a file that is no sound export
        └── ParityError                     the exported model answers differently

    UserWarning
    ├── HubWarning                          what a pull or push did that one should know
    └── UngatedLayerWarning                 part of a backbone is left as it is
"""

from __future__ import annotations

import math


class HubWarning(UserWarning):
    """What a pull or a push did that its caller should know, such as serving a stale cache."""


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


class BackboneError(GatehubError, ValueError):
    """A backbone cannot be had."""


class BackboneNotFoundError(BackboneError):
    """No backbone of that name, tag, file or repository."""


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


class SiteError(GateError):
    """A layer or stage that the backbone lacks, or a gate that does not fit it."""


class UngatedLayerWarning(UserWarning):
    """A backbone has layers that no gate reaches, so a task leaves them as they are."""


class AdapterError(GatehubError, ValueError):
    """An adapter cannot be used."""


class AdapterFormatError(AdapterError):
    """A folder that is not a sound adapter."""


class MissingFileError(AdapterFormatError, FileNotFoundError):
    """A file of the format is not there."""


class UnexpectedFileError(AdapterFormatError):
    """A file lies in the folder that the format does not know."""


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


class DataError(GatehubError, ValueError):
    """Training or evaluation data that cannot be used."""


class UnreadableImageError(DataError):
    """Images that cannot be decoded."""


class LabelMismatchError(DataError):
    """Data whose classes differ from the adapter's labels."""


class TrainingError(GatehubError, RuntimeError):
    """A training run cannot go on."""


class ResumeError(TrainingError):
    """A checkpoint that cannot be continued with these settings."""


class HubError(GatehubError):
    """A hub refused, or cannot be used."""


class HubNameError(HubError, ValueError):
    """A repository name or revision that is not valid."""


class RepositoryNotFoundError(HubError, LookupError):
    """No such repository on the hub."""


class RevisionNotFoundError(HubError, LookupError):
    """The repository has no such revision."""


class HubFileNotFoundError(HubError, LookupError):
    """The repository has no such file."""


class HubAccessError(HubError, PermissionError):
    """The hub does not let this user do it: gated, private, no token, or a wrong one."""


class HubUnreachableError(HubError, ConnectionError):
    """The hub did not answer, or answered that it cannot now; what is cached may do."""


class HubBusyError(HubUnreachableError):
    """The hub refuses for now: too many requests.

    Attributes:
        retry_after_s: when to try again, None where the hub did not say.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class HubConflictError(HubError):
    """Somebody else pushed first.

    Attributes:
        expected: the commit that the push was built on, None for none.
        found: the commit that stands in its place.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.found = found


class HubTagError(HubConflictError):
    """The tag names another commit already, and a tag stays where it is."""


class HubIntegrityError(HubError):
    """Bytes stored on the hub are not the ones their digest names."""


class EngineError(GatehubError):
    """The engine cannot do what it was asked."""


class ExecutionError(EngineError):
    """A backbone whose operations cannot be recorded and run again."""


class MemoryBudgetError(EngineError):
    """A task that does not fit the memory that tasks may take."""


class TaskUnavailableError(EngineError):
    """A task that is known, and that cannot be had just now."""


class QueueFullError(EngineError):
    """As many requests wait as may."""


class DeadlineError(EngineError, TimeoutError):
    """An answer that would come later than it was asked for."""


class TaskNotFoundError(EngineError, LookupError):
    """No task of that name is loaded."""


class InputError(EngineError, ValueError):
    """An input of the wrong shape, dtype or size."""


class ImageTooLargeError(InputError):
    """An image has more pixels than the limit, by its header."""


class ServerError(GatehubError, RuntimeError):
    """The server cannot start, or refuses a request."""


class RequestError(ServerError, ValueError):
    """A request that cannot be understood."""


class BodyTooLargeError(RequestError):
    """A request body of more bytes than the limit."""


class BodyTimeoutError(RequestError, TimeoutError):
    """A request body that does not arrive in time."""


class ServerBusyError(ServerError):
    """As many requests as may are waiting already.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: int) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ExportError(GatehubError):
    """A model cannot be exported."""


class ExportFormatError(ExportError, ValueError):
    """A file that is not ONNX, not one of gatehub's, or that ONNX Runtime cannot run."""


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
