"""An engine or a server that cannot do what it was asked."""

from __future__ import annotations

from gatehub.errors._root import GatehubError


class EngineError(GatehubError):
    """The engine cannot do what it was asked."""


class ExecutionError(EngineError):
    """A backbone whose operations cannot be recorded and run again."""


class ProgramError(EngineError):
    """A program that breaks the rules of programs: a fault of gatehub, not of a backbone."""


class MemoryBudgetError(EngineError):
    """A task that does not fit the memory that tasks may take."""


class TaskUnavailableError(EngineError):
    """A task that is known, and that cannot be had just now."""


class QueueFullError(EngineError):
    """The queue is full."""


class DeadlineError(EngineError, TimeoutError):
    """An answer that would come later than it was asked for."""


class TaskNotFoundError(EngineError, LookupError):
    """No task of that name is loaded."""


class InputError(EngineError, ValueError):
    """An input of the wrong shape, dtype or size."""


class ImageTooLargeError(InputError):
    """An image has more pixels than the limit, by its header."""


class NonFiniteAnswerError(EngineError):
    """A task answered an image with NaN or infinity."""


class ServerError(GatehubError, RuntimeError):
    """The server cannot start, or refuses a request."""


class RequestError(ServerError, ValueError):
    """A request that cannot be understood."""


class ForbiddenError(RequestError):
    """A request for what this server does not do for its clients."""


class BodyTooLargeError(RequestError):
    """A request body of more bytes than the limit."""


class BodyTimeoutError(RequestError, TimeoutError):
    """A request body that does not arrive in time."""


class AmbiguousLengthError(RequestError):
    """A request that says in two ways how long its body is."""


class ServerNotReadyError(ServerError):
    """The server is to get no more requests: it is stopping."""


class ServerBusyError(ServerError):
    """The server's queue is full.

    Attributes:
        retry_after_s: when to try again.
    """

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: int) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s
