"""Where a training run writes: its place checked, and claimed against every other run.

While a run lives, its state lies beside its adapter, in "OUT.training":

    checkpoint.safetensors    where it stands after the last whole epoch; `resume` needs it
    lock                      held by the run; the system frees it, however the run ends
    holder                    which process that is, for whoever comes second
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from gatehub._disk import write_whole
from gatehub._text import first_line, quote
from gatehub.adapter import AdapterConfig
from gatehub.adapter.files import MAX_CONFIG_BYTES
from gatehub.adapter.folder import CONFIG_FILE, check_movable, check_place
from gatehub.errors import AdapterExistsError, GatehubError, ResumeError, TrainingError
from gatehub.training.checkpoint import has_checkpoint, work_folder
from gatehub.training.sources import Given, folders_of_images, list_given
from gatehub.training.sources.products import HOLDER_FILE, LOCK_FILE, is_state

_TRIES = 100

# What lies beside an adapter while it is made has its name and some more characters.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A place that is claimed for one run.

    Args:
        folder: the adapter's.
        work: the folder of the run's state.
    """

    folder: Path
    work: Path


@contextmanager
def claim_destination(
    out: str | Path | Destination,
    *,
    task: str,
    data: Given | None = None,
    resume: bool = False,
    force: bool = False,
    check: Callable[..., None] | None = None,
) -> Iterator[Destination]:
    """Check a place and hold it for one run: nobody else trains into it meanwhile.

    The disk is tried, so one that is full or cannot be written is refused here. A run that leaves
    no checkpoint leaves nothing.

    Args:
        out: the adapter's folder; or a place that is claimed already, which is returned.
        task: the task that is to be trained.
        data: what it is trained on, in a form that `gatehub.training.sources` reads.
        resume: an interrupted run may be there; it will be continued.
        force: an adapter of another task may be there; it will be replaced.
        check: refuses what may not be replaced; None for `check_replaceable`, for an adapter.

    Raises:
        AdapterExistsError: something else is there: a file, a link, another task's adapter, or
            the data.
        ResumeError: there is an interrupted run and `resume` is False.
        TrainingError: another run holds the place, or nothing can be written there.
    """
    if isinstance(out, Destination):
        yield out
        return
    check = partial(check or check_replaceable, task=task, force=force)
    place = _check(Path(out), data, check, resume=resume)
    made = [path for path in place.work.parents if not os.path.lexists(path)]
    try:
        lock = _enter(place)
        try:
            _check_state(place.work, resume=resume)  # another run may have ended here meanwhile
            yield place
        finally:
            _leave(place.work, lock)
    finally:
        for path in (place.work, *made):
            with suppress(OSError):  # it holds something
                path.rmdir()


def check_replaceable(folder: Path, *, task: str, force: bool) -> None:
    """Refuse a folder that holds anything but an adapter of the same task.

    Args:
        folder: the adapter's.
        task: the task whose adapter will be written there.
        force: another task's adapter may be replaced, or one that cannot be read.

    Raises:
        AdapterExistsError: something else is there.
        TrainingError: see `check_path`.
        OSError: it cannot be looked at.
    """
    check_path(folder)
    check_place(folder)
    config = folder / CONFIG_FILE
    if force or not config.is_file():
        return
    hint = "Add --force (force=True) to replace it, or choose another folder."
    try:
        with config.open("rb") as file:
            found = AdapterConfig.from_json(file.read(MAX_CONFIG_BYTES), where=str(config)).task
    except GatehubError as error:
        raise AdapterExistsError(
            f"{_show(folder)} holds an adapter that cannot be read: {error.message}", hint=hint
        ) from error
    if found != task:
        raise AdapterExistsError(
            f"{_show(folder)} holds the adapter of task '{found}'; expected one of '{task}', or "
            "none.",
            hint=hint,
        )


def check_apart(folder: Path, source: str | Path) -> None:
    """Refuse to write an adapter over the images that it learns from, or in among them.

    Args:
        folder: the adapter's, or a file's that is made of the images.
        source: the data, in a form that `gatehub.training.sources` reads.

    Raises:
        AdapterExistsError: it is the data's, holds them or lies among them.
        OSError: it cannot be looked at.
    """
    if not os.path.exists(source):
        return
    place, data = Path(os.path.realpath(folder)), Path(os.path.realpath(source))
    if place == data or place in data.parents:
        raise AdapterExistsError(
            f"The data, {_show(source)}, lie in {_show(folder)}; an adapter needs a folder of its "
            "own.",
            hint="Choose another folder.",
        )
    for images in map(os.path.realpath, folders_of_images(source)):
        if Path(images) in (place, *place.parents):
            raise AdapterExistsError(
                f"{_show(folder)} lies among the images of {_show(source)}, where other programs "
                "would take it for one of their classes.",
                hint="Choose a folder outside the data.",
            )


def _check(
    folder: Path, data: Given | None, check: Callable[[Path], None], *, resume: bool
) -> Destination:
    try:
        check_path(folder)
        for source in () if data is None else list_given(data):
            check_apart(folder, source)
        check(folder)
        place = Destination(folder=folder, work=work_folder(folder))
        if (place.work / LOCK_FILE).is_file():
            _take(place).release()
        _check_state(place.work, resume=resume)
    except GatehubError:  # some of them are OSErrors too
        raise
    except (OSError, ValueError) as error:
        raise _cannot_write(folder, error) from error
    return place


def check_path(folder: Path) -> None:
    """Refuse a path at which no folder can be made, or be put in the place of another.

    Raises:
        AdapterExistsError: a link, a file above it, or a folder that others need where it is.
        TrainingError: no name for a folder, or nothing can be written there.
        OSError: it cannot be looked at.
    """
    if os.path.expanduser(folder) != str(folder):
        raise TrainingError(
            f"{_show(folder)} would be a folder called {_show(folder.parts[0])}, not your home "
            "folder.",
            hint="Write the whole path; the shell expands ~ at the beginning of a word only.",
        )
    if folder.is_symlink():
        raise AdapterExistsError(
            f"{_show(folder)} is a link to {_show(os.readlink(folder))}; expected a folder, or "
            "nothing.",
            hint="Name the folder itself.",
        )
    check_movable(folder)
    if len(os.fsencode(folder.name)) > _MAX_NAME_BYTES:
        raise TrainingError(
            f"The folder's name, {quote(folder.name, 40)}, is longer than {_MAX_NAME_BYTES} bytes.",
            hint="Choose a shorter one.",
        )
    place = Path(os.path.realpath(folder))
    above = next(path for path in place.parents if os.path.lexists(path))
    if not above.is_dir():
        raise AdapterExistsError(
            f"{_show(above)} is a file, so {_show(folder)} cannot be made in it."
        )
    if not os.access(above, os.W_OK):
        raise _cannot_write(folder, PermissionError(errno.EACCES, "", str(above)))


def _check_state(work: Path, *, resume: bool) -> None:
    """Refuse a folder of state that is not a run's, or is one's that `resume` was not asked of."""
    if not os.path.lexists(work):
        return
    names = [name for name in os.listdir(work) if name[0] != "."] if work.is_dir() else [work.name]
    if strange := sorted(name for name in names if not is_state(name)):
        raise AdapterExistsError(
            f"A run keeps its state in {_show(work)}, but {_show(strange[0])} is there.",
            hint="Move it away, or choose another folder.",
        )
    if has_checkpoint(work) and not resume:
        raise ResumeError(
            f"{_show(work)} holds an interrupted run.",
            hint="Continue it with resume (--resume), or remove that folder.",
        )


def _enter(place: Destination) -> FileLock:
    """Make the folder of state and hold it; a file is written, so that a full disk is noticed."""
    try:
        for _ in range(_TRIES):
            place.work.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # whoever held it has just left, with its folder
                lock = _take(place)
                if (place.work / LOCK_FILE).is_file():  # and not with the file that is held now
                    break
                lock.release()
        else:
            raise TrainingError(f"{_show(place.work)} vanishes as soon as it is made.")
        try:
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            write_whole(place.work / HOLDER_FILE, holder.encode())
        except BaseException:  # Ctrl-C, too, leaves nothing
            _leave(place.work, lock)
            raise
    except GatehubError:
        raise
    except OSError as error:
        raise _cannot_write(place.folder, error) from error
    return lock


def _take(place: Destination) -> FileLock:
    lock = FileLock(place.work / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        holder = ""
        with suppress(OSError, UnicodeDecodeError):
            holder = f" ({(place.work / HOLDER_FILE).read_text(encoding='utf-8')[:100].strip()})"
        raise TrainingError(
            f"Another run trains into {_show(place.folder)} now{holder}.",
            hint="Wait for it, stop it, or choose another folder.",
        ) from error
    return lock


def _leave(work: Path, lock: FileLock) -> None:
    """Let go of the folder; only a checkpoint stays in it."""
    for name in (HOLDER_FILE, LOCK_FILE):
        # The lock while it is held: afterwards it may be another run's. (Windows removes it then.)
        with suppress(OSError):
            (work / name).unlink()
    lock.release()


def _cannot_write(folder: Path, error: Exception) -> TrainingError:
    code = error.errno if isinstance(error, OSError) else None
    reason = first_line(error) if code is None else os.strerror(code)
    return TrainingError(
        f"No adapter can be written to {_show(folder)}: {reason}.",
        hint="Choose another folder, or see to its disk.",
    )


def _show(path: str | Path) -> str:
    return quote(str(path))
