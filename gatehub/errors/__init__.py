"""Everything gatehub raises on purpose.

Each error says in one sentence what is wrong, where, what was found and what was
expected; `hint` says what to do next. A builtin stands as second base where callers
already catch it.

    GatehubError
    ├── BackboneError                       a backbone cannot be had
    │   ├── BackboneChangedError            it has changed since it was loaded
    │   ├── BackboneNotFoundError           no such name, tag, file or repository
    │   └── UnsafeWeightsError              only a pickle is offered
    ├── DeviceError                         no such device here
    ├── GateError                           gates cannot be attached or folded
    │   ├── GateKindError                   no such gate kind
    │   ├── AlreadyGatedError               the model already carries gates
    │   ├── EmbeddingError                  a network that has no equal convolutional one
    │   └── SiteError                       a layer or stage that is not there, or does not fit
    ├── AdapterError
    │   ├── AdapterFormatError              a folder that is not a sound adapter
    │   │   ├── MissingFileError            a file of the format is not there
    │   │   ├── PointerFileError            a file that was cloned without git-lfs
    │   │   ├── UnexpectedFileError         a file that may run, or something in a file's place
    │   │   ├── CorruptTensorsError         truncated, overlong or malformed safetensors
    │   │   ├── HeaderTooLargeError         a tensor header over the limit
    │   │   ├── DuplicateKeyError           a JSON key that stands twice
    │   │   ├── UnsafeNameError             a name that could be a path
    │   │   ├── UnknownTensorError          a tensor that the config does not declare
    │   │   ├── MissingTensorError          a tensor that the config declares and the file lacks
    │   │   ├── TensorShapeError            another shape than declared
    │   │   ├── TensorDtypeError            another dtype than declared, or one never stored
    │   │   ├── NonFiniteTensorError        NaN or infinity
    │   │   ├── NegativeVarianceError       a running variance below 0
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
    │   ├── DivergenceError                 the loss became infinite or NaN
    │   ├── GuidanceError                   a network cannot guide another
    │   ├── PoorFitError                    an adapter that is too little like its network
    │   └── ResumeError                     a checkpoint that cannot be continued
    ├── HubError
    │   ├── HubNameError                    a repository name or revision that is not valid
    │   ├── RepositoryNotFoundError         no such repository on the hub
    │   ├── RevisionNotFoundError           no such revision of it
    │   ├── HubFileNotFoundError            no such file in the repository
    │   ├── HubAccessError                  gated, private, or a token without permission
    │   ├── HubUnreachableError             no answer, or none that can be used
    │   │   ├── HubBusyError                too many requests, or the hub is overloaded
    │   │   └── HubAbsentError              nothing is where a folder hub should be
    │   ├── HubConflictError                somebody else pushed first
    │   │   └── HubTagError                 the tag names another commit
    │   └── HubIntegrityError               stored bytes differ from their digest
    ├── EngineError
    │   ├── ExecutionError                  a backbone whose operations cannot be replayed
    │   ├── ProgramError                    a program that breaks the rules of programs
    │   ├── MemoryBudgetError               a task that does not fit the memory it may take
    │   ├── TaskUnavailableError            a task that is known and cannot be had just now
    │   ├── QueueFullError                  the queue is full
    │   ├── DeadlineError                   an answer that would come too late
    │   ├── TaskNotFoundError               no task of that name is loaded
    │   ├── NonFiniteAnswerError            a task that answers an image with NaN or infinity
    │   └── InputError                      an input of the wrong shape, dtype or size
    │       └── ImageTooLargeError          an image of more pixels than the limit
    ├── ServerError                         the server cannot start, or refuses a request
    │   ├── RequestError                    a request that cannot be understood
    │   │   ├── AmbiguousLengthError        two statements of how long it is
    │   │   ├── ForbiddenError              something that this server does not do for its clients
    │   │   ├── BodyTooLargeError           more bytes than the limit
    │   │   └── BodyTimeoutError            bytes that do not arrive in time
    │   ├── ServerBusyError                 the queue is full
    │   └── ServerNotReadyError             the server is stopping
    └── ExportError
        ├── ExportFormatError               a file that is not a sound export
        ├── ExportIntegrityError            an exported file that was edited
        └── ParityError                     the exported model answers differently

    UserWarning
    ├── ExtraFilesWarning                   files in an adapter's folder that are left alone
    ├── HubWarning                          what a pull or push did that one should know
    └── UngatedLayerWarning                 part of a backbone is left as it is
"""

from __future__ import annotations

from gatehub.errors._adapter import (
    AdapterError,
    AdapterExistsError,
    AdapterFormatError,
    BackboneMismatchError,
    ConfigError,
    CorruptTensorsError,
    DigestMismatchError,
    DuplicateKeyError,
    ExtraFilesWarning,
    FormatVersionError,
    HeaderTooLargeError,
    MissingFileError,
    MissingTensorError,
    NegativeVarianceError,
    NonFiniteTensorError,
    PointerFileError,
    SelfCheckError,
    TensorDtypeError,
    TensorShapeError,
    UnexpectedFileError,
    UnknownTensorError,
    UnsafeNameError,
)
from gatehub.errors._export import (
    ExportError,
    ExportFormatError,
    ExportIntegrityError,
    ParityError,
)
from gatehub.errors._hub import (
    HubAbsentError,
    HubAccessError,
    HubBusyError,
    HubConflictError,
    HubError,
    HubFileNotFoundError,
    HubIntegrityError,
    HubNameError,
    HubTagError,
    HubUnreachableError,
    HubWarning,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from gatehub.errors._model import (
    AlreadyGatedError,
    BackboneChangedError,
    BackboneError,
    BackboneNotFoundError,
    DeviceError,
    EmbeddingError,
    GateError,
    GateKindError,
    SiteError,
    UngatedLayerWarning,
    UnsafeWeightsError,
)
from gatehub.errors._root import (
    GatehubError,
)
from gatehub.errors._serving import (
    AmbiguousLengthError,
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineError,
    EngineError,
    ExecutionError,
    ForbiddenError,
    ImageTooLargeError,
    InputError,
    MemoryBudgetError,
    NonFiniteAnswerError,
    ProgramError,
    QueueFullError,
    RequestError,
    ServerBusyError,
    ServerError,
    ServerNotReadyError,
    TaskNotFoundError,
    TaskUnavailableError,
)
from gatehub.errors._training import (
    DataError,
    DivergenceError,
    GuidanceError,
    LabelMismatchError,
    PoorFitError,
    ResumeError,
    TrainingError,
    UnreadableImageError,
)

__all__ = [
    "AdapterError",
    "AdapterExistsError",
    "AdapterFormatError",
    "AlreadyGatedError",
    "AmbiguousLengthError",
    "BackboneChangedError",
    "BackboneError",
    "BackboneMismatchError",
    "BackboneNotFoundError",
    "BodyTimeoutError",
    "BodyTooLargeError",
    "ConfigError",
    "CorruptTensorsError",
    "DataError",
    "DeadlineError",
    "DeviceError",
    "DigestMismatchError",
    "DivergenceError",
    "DuplicateKeyError",
    "EmbeddingError",
    "EngineError",
    "ExecutionError",
    "ExportError",
    "ExportFormatError",
    "ExportIntegrityError",
    "ExtraFilesWarning",
    "ForbiddenError",
    "FormatVersionError",
    "GateError",
    "GateKindError",
    "GatehubError",
    "GuidanceError",
    "HeaderTooLargeError",
    "HubAbsentError",
    "HubAccessError",
    "HubBusyError",
    "HubConflictError",
    "HubError",
    "HubFileNotFoundError",
    "HubIntegrityError",
    "HubNameError",
    "HubTagError",
    "HubUnreachableError",
    "HubWarning",
    "ImageTooLargeError",
    "InputError",
    "LabelMismatchError",
    "MemoryBudgetError",
    "MissingFileError",
    "MissingTensorError",
    "NegativeVarianceError",
    "NonFiniteAnswerError",
    "NonFiniteTensorError",
    "ParityError",
    "PointerFileError",
    "PoorFitError",
    "ProgramError",
    "QueueFullError",
    "RepositoryNotFoundError",
    "RequestError",
    "ResumeError",
    "RevisionNotFoundError",
    "SelfCheckError",
    "ServerBusyError",
    "ServerError",
    "ServerNotReadyError",
    "SiteError",
    "TaskNotFoundError",
    "TaskUnavailableError",
    "TensorDtypeError",
    "TensorShapeError",
    "TrainingError",
    "UnexpectedFileError",
    "UngatedLayerWarning",
    "UnknownTensorError",
    "UnreadableImageError",
    "UnsafeNameError",
    "UnsafeWeightsError",
]
