"""A private copy of an adapter's files: what a push checks is what it sends.

The folder itself may change in between: a program may write to it, or a link take the place of a
file that was checked, and lead to what was never to be published. So each file is opened once,
through no link, and its bytes are copied to where no other user can put anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from gatehub._disk import staged
from gatehub.errors import AdapterFormatError
from gatehub.hub.files import MAX_FILE_BYTES, StoredFile, digest_stream, open_regular


@contextmanager
def copied(folder: Path) -> Iterator[tuple[Path, dict[str, StoredFile]]]:
    """Copy an adapter's files for the length of a with block.

    The copy lies in the system's folder for temporary files (TMPDIR) and needs as much room as the
    adapter; of memory it takes a chunk.

    Args:
        folder: an adapter's; files that are not its own stay there.

    Yields:
        The copy, and the digests of its files.

    Raises:
        AdapterFormatError: a file is a link, or longer than a hub takes.
        OSError: the disk refuses.
    """
    with staged(Path(gettempdir()) / "adapter", private=True) as copy:
        files = {}
        with _opened(folder) as within:
            for name in sorted(MAX_FILE_BYTES):
                with suppress(FileNotFoundError):
                    files[name] = _copy(folder / name, copy / name, within)
        yield copy, files


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """Hold the folder itself, so that all files are of one, whatever takes its name meanwhile."""
    if os.open not in os.supports_dir_fd:  # Windows
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path, within: int | None) -> StoredFile:
    limit = MAX_FILE_BYTES[source.name]
    stream = open_regular(source if within is None else source.name, within=within)
    if stream is None:
        raise AdapterFormatError(
            f"'{source}' is not a regular file; a push follows no link, since it could lead to "
            "what was never to be published.",
            hint="Put the file itself there, for example from a copy: cp -rL "
            f"'{source.parent}' COPY.",
        )
    with stream, target.open("xb") as copy:
        size = os.fstat(stream.fileno()).st_size
        if size <= limit:
            file = digest_stream(stream, copy, max_bytes=limit)
            size = file.bytes
    if size > limit:
        raise AdapterFormatError(f"'{source}' has {size:,} bytes; a hub takes {limit:,}.")
    return file
