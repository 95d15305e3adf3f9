"""What lies in an adapter's folder: its own files, and others that are left alone."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from gatehub._file_kinds import (
    ONNX,
    advise_pull,
    describe_file,
    describe_pointer,
    is_pointer,
    may_run,
)
from gatehub._text import quote
from gatehub.errors import (
    AdapterExistsError,
    ExtraFilesWarning,
    MissingFileError,
    PointerFileError,
    UnexpectedFileError,
)

CONFIG_FILE = "config.json"
TENSORS_FILE = "gates.safetensors"
CARD_FILE = "README.md"
PEFT_FILE = "adapter_config.json"
INFO_FILE = "gatehub.json"  # in a folder that a training wrote and that is no adapter's
REQUIRED_FILES = (CONFIG_FILE, TENSORS_FILE, CARD_FILE)
OPTIONAL_FILES = ("training.jsonl", "training.png", "gates.png")
ADAPTER_FILES = REQUIRED_FILES + OPTIONAL_FILES


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter's, sound or not: by what lies in it, not by its name."""
    return (folder / CONFIG_FILE).is_file() and (folder / TENSORS_FILE).is_file()


def list_files(folder: Path) -> set[str]:
    """Return the names of an adapter's files in its folder; each leads to a regular file.

    Whatever else lies there is left alone, and a warning names it: licences, notes, what desktops
    leave behind. Names that begin with a dot are passed over without a word.

    Raises:
        MissingFileError: no folder, or a file that every adapter has is not there.
        PointerFileError: a file was checked out without git-lfs.
        UnexpectedFileError: a file that may run, or something else in the place of a file.
        OSError: the folder cannot be read.
    """
    if not os.path.isdir(folder):
        raise _no_folder(folder)
    if (folder / INFO_FILE).is_file() and not (folder / TENSORS_FILE).is_file():
        raise _no_adapter(folder)
    for name in REQUIRED_FILES:
        if not (folder / name).is_file():
            raise MissingFileError(
                f"'{folder}' has no {name}, so the adapter is incomplete.",
                hint="Fetch or save it again.",
            )
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    present = {name for name in names if name in ADAPTER_FILES}
    for name in sorted(present):
        if not (folder / name).is_file():
            raise UnexpectedFileError(f"'{folder}' holds '{name}', which is not a regular file.")
        if is_pointer(folder / name):
            raise PointerFileError(describe_pointer(f"'{folder / name}'"), hint=advise_pull(folder))
    others = sorted(names - present)
    # Nothing here would run it. But Python looks for modules where one works, so a torch.py in an
    # adapter is imported in torch's place; and a pickle beside gates is there to be loaded.
    if running := [name for name in others if may_run(name) or _is_package(folder / name)]:
        raise UnexpectedFileError(
            f"'{folder}' holds {_list_names(running)}, which is not part of an adapter and may run "
            "when it is opened or imported.",
            hint="Look where it came from, and move it away.",
        )
    if others:
        warnings.warn(
            f"'{folder}' also holds {_list_names(others)}, which no adapter has; it is left alone.",
            ExtraFilesWarning,
            stacklevel=5,
        )
    return present


def check_movable(folder: Path) -> None:
    """Refuse a place that another folder cannot take: an adapter is made beside it, and put there.

    Who works in a folder that was replaced works in one that is gone: commands find nothing, and
    `os.getcwd` fails. So the current folder and the home folder are refused, and those above them.

    Raises:
        AdapterExistsError: it is such a folder, or one where a file system is mounted.
    """
    place = Path(os.path.realpath(folder))
    for name, path in (("the current folder", os.curdir), ("your home folder", "~")):
        try:
            taken = Path(os.path.realpath(os.path.expanduser(path)))
        except FileNotFoundError:  # the current one is gone already
            continue
        if place in (taken, *taken.parents):
            what = name if place == taken else f"a folder above {name}"
            raise AdapterExistsError(
                f"{quote(str(folder))} is {what}; an adapter needs a folder of its own, which is "
                "replaced as a whole.",
                hint="Change to another folder first, and name this one from there."
                if is_adapter(place)
                else "Name a new folder.",
            )
    if os.path.ismount(folder):
        raise AdapterExistsError(
            f"{quote(str(folder))} is where a file system is mounted, so nothing can be put in its "
            "place.",
            hint="Name a folder inside it.",
        )


def check_place(folder: Path) -> None:
    """Refuse a place where writing an adapter would lose something else, or is not possible.

    Raises:
        AdapterExistsError: a file, a folder that holds anything but an adapter, or one that
            another cannot replace; see `check_movable`.
    """
    check_movable(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise AdapterExistsError(f"'{folder}' is a file; expected a folder or nothing.")
    if names := find_foreign(folder):
        raise AdapterExistsError(
            f"'{folder}' holds {_list_names(names)}, which would be lost; it is left as it is.",
            hint="Choose another folder, or move that away.",
        )
    present = {path.name for path in folder.iterdir()}
    if present and not present >= set(REQUIRED_FILES):
        raise AdapterExistsError(
            f"'{folder}' holds something other than an adapter; it is left as it is.",
            hint="Choose another folder.",
        )


def find_foreign(folder: Path) -> list[str]:
    """Return the names in a folder that are no files of an adapter, hidden ones and links too."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in ADAPTER_FILES or path.is_symlink() or not path.is_file()
    )


def _no_folder(folder: Path) -> MissingFileError | PointerFileError:
    """What is there instead of a folder."""
    try:
        kind = describe_file(folder)
        if folder.is_file() and is_pointer(folder):
            hint = advise_pull(folder.parent)
            return PointerFileError(describe_pointer(f"'{folder}'"), hint=hint)
    except (OSError, ValueError):
        return MissingFileError(
            f"'{folder}' is not a folder, so it is not an adapter.", hint="Check the path."
        )
    if folder.name in ADAPTER_FILES:
        hint = f"Give the folder that it lies in: '{folder.parent}'."
    elif kind == ONNX:
        hint = "Give the adapter that it was exported from. `gatehub verify` checks the file."
    else:
        hint = f"Give a folder with {', '.join(REQUIRED_FILES)}."
    return MissingFileError(f"'{folder}' is {kind}, and no folder of an adapter.", hint=hint)


def _is_package(path: Path) -> bool:
    """Whether a folder is one that Python imports."""
    try:
        return any(name.startswith("__init__.") and may_run(name) for name in os.listdir(path))
    except OSError:  # no folder, or one that is closed to us
        return False


def _list_names(names: list[str]) -> str:
    """Write a few names as a list, however many there are."""
    shown = " and ".join(quote(name, 80) for name in names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _no_adapter(folder: Path) -> MissingFileError:
    """Of a folder that a training wrote by a method that leaves no adapter."""
    if (folder / PEFT_FILE).is_file():
        kind = "updates in PEFT's format"
        way = f"peft.PeftModel.from_pretrained(…, '{folder}') reads it"
    else:
        kind = "a whole network in timm's format"
        way = (
            f"gatehub eval and predict take it, gatehub distill-to-gates {folder} makes one of it, "
            f"and it is a backbone of its own (--backbone local-dir:{folder})"
        )
    return MissingFileError(
        f"'{folder}' holds {kind}, and no adapter.",
        hint=f"{way}. How good it was stands in its {INFO_FILE}.",
    )
