"""A backbone's files from the Hub: of one commit, proven, and by the same rules as adapters.

The Hub client's own cache holds them, since every program that loads timm's weights shares
it. Its files are named by the digest that the Hub gave: SHA-256 for large ones, git's SHA-1
for others. The client itself never reads a file again to compare; here that is done on every
load.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from itertools import count
from pathlib import Path

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)

from gatehub._huggingface.refusals import asking, current_endpoint
from gatehub._huggingface.tokens import choose_token
from gatehub._retries import retry
from gatehub.errors import (
    BackboneError,
    BackboneNotFoundError,
    HubError,
    HubFileNotFoundError,
    HubUnreachableError,
    HubWarning,
)

_PICKLE = "pytorch_model.bin"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACE = re.compile(r"/([\w.-]+/[\w.-]+)/resolve/.*")
_ATTEMPTS = 3


def fetch_file(repository: str, filename: str, revision: str | None) -> Path | None:
    """Download one file of a Hub repository through huggingface_hub's cache, and prove it.

    Args:
        repository: `org/name`.
        filename: the file.
        revision: a branch, tag or commit; None is `main`.

    Returns:
        The file, in a folder that is called by its commit; None if the commit has no such file.

    Raises:
        BackboneNotFoundError: the Hub does not give it, and it is not in the cache.
        BackboneError: other bytes came, again and again, than the Hub's digest says.
    """
    tried = count()

    def fetch() -> Path:
        with _asking(repository, filename, revision):
            file = hf_hub_download(
                repository,
                filename,
                revision=found,
                endpoint=current_endpoint(),
                token=choose_token(current_endpoint()),
                force_download=next(tried) > 0,
            )
        if not _is_sound(Path(file)):
            raise BackboneError(
                f"{filename} of {repository} came {_ATTEMPTS} times with other bytes than the "
                "Hub's digest of it.",
                hint="A proxy or the disk damages it. Try again, or another network.",
            )
        return Path(file)

    def wait(error: Exception, failed: int) -> float | None:
        return 0.0 if isinstance(error, BackboneError) else None

    try:
        found = _find_revision(repository, filename, revision)
        return retry(fetch, attempts=_ATTEMPTS, wait=wait)
    except HubFileNotFoundError:
        return None
    except HubError as error:
        raise BackboneNotFoundError(error.message, hint=error.hint) from error


def find_pickle(repository: str, revision: str | None) -> list[str]:
    """The pickle to which timm would fall back, if the repository offers it; for a message."""
    with contextlib.suppress(HubError), _asking(repository, _PICKLE, revision):
        _head(repository, _PICKLE, revision)
        return [_PICKLE]
    return []


def _find_revision(repository: str, filename: str, revision: str | None) -> str | None:
    """The revision itself if the Hub answers for it, or else the commit that the cache has of it.

    The client would use the cache as well where the Hub is away, and say nothing.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    try:
        with _asking(repository, filename, revision):
            present = _head(repository, filename, revision)
    except HubUnreachableError as error:
        cached = try_to_load_from_cache(repository, filename, revision=revision)
        if not isinstance(cached, str):
            error.message = (
                f"{error.message} {filename} of {repository} is not in the cache either."
            )
            error.hint = f"{error.hint or 'Check the network.'} Or give weights=PATH (--weights)."
            raise
        commit = Path(cached).parent.name
        warnings.warn(
            f"{error.message} Using {repository} from the cache (commit {commit[:12]}), which may "
            "be stale.",
            HubWarning,
            stacklevel=5,
        )
        return commit
    if present != repository:
        warnings.warn(f"{repository} is called {present} now.", HubWarning, stacklevel=5)
    return revision


def _head(repository: str, filename: str, revision: str | None) -> str:
    """Ask for a file without its bytes, and return what its repository is called now.

    A large file lies at a place that does not tell.
    """
    endpoint = current_endpoint()
    url = hf_hub_url(repository, filename, revision=revision, endpoint=endpoint)
    token = choose_token(endpoint)
    place = get_hf_file_metadata(url, token=token, endpoint=endpoint).location
    found = _PLACE.fullmatch(place.removeprefix(endpoint))
    return repository if found is None else found[1]


def _asking(
    repository: str, filename: str, revision: str | None
) -> contextlib.AbstractContextManager[None]:
    return asking(
        f"Fetching {filename} of {repository}",
        repository,
        endpoint=current_endpoint(),
        revision=revision,
        filename=filename,
    )


def _is_sound(file: Path) -> bool:
    """Whether a file of the client's cache has the bytes by whose digest it is called.

    Where links cannot be made (some Windows), the cache does not keep the digest.
    """
    name, data = file.resolve().name, file.read_bytes()
    if _SHA256.fullmatch(name):
        return hashlib.sha256(data).hexdigest() == name
    if _COMMIT.fullmatch(name):
        header = b"blob %d\0" % len(data)
        return hashlib.sha1(header + data, usedforsecurity=False).hexdigest() == name
    return True
