"""Known errors as one sentence and a hint, with exit status 1."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec

import typer

from gatehub._text import printable
from gatehub.errors import ExtraFilesWarning, GatehubError, HubWarning

P = ParamSpec("P")

INTERRUPTED = 130


def reports_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Let a command end with a sentence on stderr where it would end with a traceback.

    GATEHUB_DEBUG=1 in the environment shows the traceback. An error that gatehub does not know
    is a defect, and keeps its traceback.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with _showing_warnings():
                command(*args, **kwargs)
        except GatehubError as error:
            _end(error, *(spell_options(text, command) for text in (error.message, error.hint)))
        except KeyboardInterrupt as error:
            _end(error, "Interrupted.", None, status=INTERRUPTED)
        except BrokenPipeError as error:
            # Whoever read our output has gone; Python would complain once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        except OSError as error:
            if error.errno is None:
                raise
            where = f" ('{error.filename}')" if error.filename else ""
            hint = "Free some space." if error.errno == errno.ENOSPC else None
            _end(error, f"{os.strerror(error.errno)}{where}.", hint)

    return wrapped


def spell_options(text: str | None, command: Callable[..., None]) -> str | None:
    """Write the names of a command's parameters, such as gate_rate, as its options.

    Only names with an underscore: the others are words, too. What is quoted is left as it is.
    """
    names = [name for name in inspect.signature(command).parameters if "_" in name]
    if not text or not names:
        return text
    pattern = rf"""(?<![\w'"`/.-])({"|".join(names)})(?![\w'"`/=-]|\.\w)"""
    return re.sub(pattern, lambda found: "--" + found[0].replace("_", "-"), text)


@contextmanager
def _showing_warnings() -> Iterator[None]:
    """Show what a hub or a folder has to say as a plain sentence, without a place in the source."""
    told = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_plainly(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, HubWarning | ExtraFilesWarning):
                show(message, category, *rest)
            elif str(message) not in told:  # a folder is read more than once in some commands
                told.add(str(message))
                typer.echo(printable(str(message)), err=True)

        for category in (HubWarning, ExtraFilesWarning):
            warnings.simplefilter("always", category)
        # The Hub's client guesses that a download will not fit; the disk itself says it better.
        warnings.filterwarnings("ignore", "Not enough free disk space", UserWarning)
        warnings.showwarning = show_plainly  # type: ignore[assignment]
        yield


def _end(error: BaseException, message: str | None, hint: str | None, *, status: int = 1) -> None:
    if os.environ.get("GATEHUB_DEBUG") == "1":
        raise error
    message = printable(message or "")  # a path may hold anything
    typer.echo(f"Error: {message}" if status == 1 else message, err=True)
    if hint:
        typer.echo(f"Hint: {printable(hint)}", err=True)
    raise typer.Exit(status) from error
