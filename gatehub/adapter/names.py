"""Names that are safe in a file, a URL and a shell: of tasks, tensors and files."""

from __future__ import annotations

import re

from gatehub._text import quote
from gatehub.adapter._fields import describe, is_text
from gatehub.errors import ConfigError, UnsafeNameError

_TASK_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
_TENSOR_PATTERN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+", re.ASCII)


def check_task_name(name: object) -> None:
    """Refuse a task name that is not fit for a file, a URL and a shell.

    Raises:
        UnsafeNameError: it has other characters, or is too long.
    """
    if not isinstance(name, str) or _TASK_PATTERN.fullmatch(name) is None:
        raise UnsafeNameError(
            f"{quote(name, 100)} is not a valid task name; expected letters, digits, '.', '_' and "
            "'-', at most 96, the first a letter or a digit.",
            hint="Choose a name such as 'birds' or 'birds-2'.",
        )


def check_line(text: str, claim: str) -> None:
    """Refuse what is not one line of text, at most 4,096 characters, that UTF-8 can write.

    Args:
        text: a label or a setting.
        claim: how the error begins, such as "Adapter 'birds' has the label".

    Raises:
        ConfigError: it is something else.
    """
    if not is_text(text):
        raise ConfigError(f"{claim} {describe(text)}; expected one line of text.")


def check_tensor_name(name: str, where: str) -> None:
    """Refuse a tensor name that is not dotted identifiers.

    Raises:
        UnsafeNameError: it is something else, such as a path.
    """
    if _TENSOR_PATTERN.fullmatch(name) is None or len(name) > 256:
        raise UnsafeNameError(
            f"{where} names a tensor {quote(name, 100)}; expected dotted identifiers, "
            "such as 'layer1.0.conv1.gate'."
        )


def check_file_name(name: str, where: str) -> None:
    """Refuse a file name that could lead out of the folder.

    Raises:
        UnsafeNameError: it is a path, hidden, or has unusual characters.
    """
    if _TASK_PATTERN.fullmatch(name) is None:
        raise UnsafeNameError(
            f"{where} names a file {quote(name, 100)}; expected a plain name without a folder."
        )
