"""A hub that refuses, or cannot be used."""

from __future__ import annotations

from gatehub.errors._root import GatehubError


class HubWarning(UserWarning):
    """What a pull or a push did that its caller should know, such as serving a stale cache."""


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


class HubAbsentError(HubUnreachableError, RepositoryNotFoundError):
    """Nothing is where a folder hub should be: no such path, or a drive that is not mounted."""


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
