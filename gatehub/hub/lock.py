"""A file of pinned pulls: which commit a name led to, and every digest under it.

    {"format": 1,
     "adapters": {"acme/birds@v1": {"hub": "https://huggingface.co",
                                    "repo": "acme/birds",
                                    "commit": "…",
                                    "files": {"config.json": {"bytes": 1234, "sha256": "…"}, …}}}}

Kept beside a deployment's code, it makes every pull of that name bring the same bytes, wherever
the branch or the tag has gone since, whatever the hub serves.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gatehub._disk import write_whole
from gatehub.errors import HubError, HubNameError
from gatehub.hub.cache import parse_files
from gatehub.hub.files import MAX_FILE_BYTES, StoredFile
from gatehub.hub.guard import guarded
from gatehub.hub.names import check_repository, is_commit, split_name

FORMAT = 1
_MAX_LOCK_BYTES = 16_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What one name is pinned to.

    Attributes:
        hub: where it was pulled from.
        repo: the repository's name there, which the pinned name may not be any more.
        commit: the commit.
        files: size and SHA-256 of each file.
    """

    hub: str
    repo: str
    commit: str
    files: Mapping[str, StoredFile] = field(repr=False)


def read_lock(path: Path) -> dict[str, Pin]:
    """The pins of a lock file by name (`org/name[@revision]`), none if there is no file.

    Raises:
        HubError: the file is not a lock file.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise ValueError("it is not a regular file")
        if found.st_size > _MAX_LOCK_BYTES:
            raise ValueError(f"it has more than {_MAX_LOCK_BYTES:,} bytes")
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise ValueError(f"it is not of format {FORMAT}")
        return {name: _pin(name, entry) for name, entry in record["adapters"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HubError(
            f"'{path}' cannot be read: {error.strerror or error}.", hint="Check the path."
        ) from error
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise HubError(
            f"'{path}' is not a lock file of gatehub: {error}.",
            hint="Name another file, or restore this one.",
        ) from error


def add_pin(path: Path, name: str, pin: Pin) -> None:
    """Pin a name in a lock file, whole or not at all, beside what others pin there meanwhile.

    A link to a lock file stays, and what it leads to is written.

    Raises:
        HubError: the file is not a lock file, or another process does not let go of it.
    """
    path = Path(os.path.realpath(path))
    with guarded(path):
        pins = {**read_lock(path), name: pin}
        record = {"format": FORMAT, "adapters": {name: asdict(pins[name]) for name in sorted(pins)}}
        write_whole(path, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())


def _pin(name: str, entry: Any) -> Pin:
    try:
        split_name(name)
        hub, commit = str(entry["hub"]), str(entry["commit"])
        repo = check_repository(str(entry["repo"]))
    except (HubNameError, TypeError, KeyError) as error:
        raise ValueError(f"its entry {name[:100]!r} is not a pin") from error
    if not is_commit(commit):
        raise ValueError(f"its entry {name!r} has no commit")
    files = parse_files(entry.get("files"))
    if foreign := sorted(files.keys() - MAX_FILE_BYTES.keys()):
        raise ValueError(f"its entry {name!r} pins {foreign[0]!r}, which no adapter has")
    return Pin(hub=hub, repo=repo, commit=commit, files=files)
