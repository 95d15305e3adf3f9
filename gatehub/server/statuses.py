"""Which HTTP status and code each of gatehub's errors has.

A client can mend what is a 4xx. A 503 says that the same request may be answered later, a 502 that
a hub does not give the task's adapter. What may happen only through a fault of gatehub itself is a
500, and its sentence is not for clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gatehub import errors
from gatehub.errors import GatehubError


@dataclass(frozen=True, slots=True)
class Status:
    """How an error is answered.

    Args:
        status: of HTTP.
        code: a word for programs, stable from version to version.
        about_task: whether the task itself cannot be had: another one may, and to try again at once
            is of no use.
    """

    status: int
    code: str
    about_task: bool = False

    @property
    def is_fault(self) -> bool:
        """Whether only a fault of gatehub itself leads here."""
        return self.status == 500


FAULT = Status(500, "internal_error")
_REQUEST = Status(400, "invalid_request")
_BUSY = Status(503, "server_busy")
_UNAVAILABLE = Status(503, "task_unavailable", about_task=True)
_ADAPTER = Status(503, "adapter_unusable", about_task=True)
_BACKBONE = Status(503, "backbone_unusable", about_task=True)
_HUB_AWAY = Status(503, "hub_unreachable", about_task=True)
_HUB_REFUSES = Status(502, "hub_refused", about_task=True)

STATUSES: Mapping[type[GatehubError], Status] = {
    GatehubError: FAULT,
    # What a client sent.
    errors.RequestError: _REQUEST,
    errors.AmbiguousLengthError: Status(400, "ambiguous_length"),
    errors.BodyTimeoutError: Status(408, "body_timeout"),
    errors.BodyTooLargeError: Status(413, "body_too_large"),
    errors.ForbiddenError: Status(403, "forbidden"),
    errors.TaskNotFoundError: Status(404, "task_not_found"),
    errors.InputError: Status(422, "invalid_image"),
    errors.ImageTooLargeError: Status(413, "image_too_large"),
    errors.NonFiniteAnswerError: Status(422, "answer_not_finite"),
    # What the server has no room or no time for.
    errors.ServerBusyError: _BUSY,
    errors.QueueFullError: _BUSY,
    errors.ServerNotReadyError: Status(503, "not_ready"),
    errors.DeadlineError: Status(503, "deadline_exceeded"),
    errors.MemoryBudgetError: Status(503, "memory_budget"),
    errors.TaskUnavailableError: _UNAVAILABLE,
    # Adapters and backbones that whoever runs the server has to mend.
    errors.AdapterError: _ADAPTER,
    errors.AdapterExistsError: _ADAPTER,
    errors.AdapterFormatError: _ADAPTER,
    errors.BackboneMismatchError: _ADAPTER,
    errors.ConfigError: _ADAPTER,
    errors.CorruptTensorsError: _ADAPTER,
    errors.DigestMismatchError: _ADAPTER,
    errors.DuplicateKeyError: _ADAPTER,
    errors.FormatVersionError: _ADAPTER,
    errors.HeaderTooLargeError: _ADAPTER,
    errors.MissingFileError: _ADAPTER,
    errors.MissingTensorError: _ADAPTER,
    errors.NegativeVarianceError: _ADAPTER,
    errors.NonFiniteTensorError: _ADAPTER,
    errors.PointerFileError: _ADAPTER,
    errors.SelfCheckError: _ADAPTER,
    errors.TensorDtypeError: _ADAPTER,
    errors.TensorShapeError: _ADAPTER,
    errors.UnexpectedFileError: _ADAPTER,
    errors.UnknownTensorError: _ADAPTER,
    errors.UnsafeNameError: _ADAPTER,
    errors.GateError: _ADAPTER,
    errors.AlreadyGatedError: _ADAPTER,
    errors.GateKindError: _ADAPTER,
    errors.SiteError: _ADAPTER,
    errors.BackboneError: _BACKBONE,
    errors.BackboneChangedError: _BACKBONE,
    errors.BackboneNotFoundError: _BACKBONE,
    errors.UnsafeWeightsError: _BACKBONE,
    errors.DeviceError: _BACKBONE,
    errors.ExecutionError: _BACKBONE,
    # Hubs from which a task is to come.
    errors.HubUnreachableError: _HUB_AWAY,
    errors.HubAbsentError: _HUB_AWAY,
    errors.HubBusyError: _HUB_AWAY,
    errors.HubError: _HUB_REFUSES,
    errors.HubAccessError: _HUB_REFUSES,
    errors.HubConflictError: _HUB_REFUSES,
    errors.HubFileNotFoundError: _HUB_REFUSES,
    errors.HubIntegrityError: _HUB_REFUSES,
    errors.HubNameError: _HUB_REFUSES,
    errors.HubTagError: _HUB_REFUSES,
    errors.RepositoryNotFoundError: _HUB_REFUSES,
    errors.RevisionNotFoundError: _HUB_REFUSES,
    # Nothing that a server does raises these.
    errors.EngineError: FAULT,
    errors.ProgramError: FAULT,
    errors.ServerError: FAULT,
    errors.EmbeddingError: FAULT,
    errors.DataError: FAULT,
    errors.LabelMismatchError: FAULT,
    errors.UnreadableImageError: FAULT,
    errors.TrainingError: FAULT,
    errors.DivergenceError: FAULT,
    errors.GuidanceError: FAULT,
    errors.PoorFitError: FAULT,
    errors.ResumeError: FAULT,
    errors.ExportError: FAULT,
    errors.ExportFormatError: FAULT,
    errors.ExportIntegrityError: FAULT,
    errors.ParityError: FAULT,
}

_OUT_OF_MEMORY = Status(503, "out_of_memory")


def find_status(error: BaseException) -> Status:
    """Return how an error is answered, by the nearest class that the table knows."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return _OUT_OF_MEMORY
    known = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return next(known, FAULT)
