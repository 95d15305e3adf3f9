"""The first process's part: starting the others, and ending them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO

import torch
from torch.distributed import TCPStore

from gatehub.backbone.device import find_device
from gatehub.errors import DeviceError, GatehubError, TrainingError
from gatehub.training.parallel.follower import HOST, LOST, READY
from gatehub.training.parallel.group import check_accelerate, joined
from gatehub.training.parallel.team import Team

_LOOKS_EVERY_S = 0.05
# How long a process whose connection broke may take to end, on a busy machine.
_LAST_WORDS_S = 60.0
_SHOWN_CHARACTERS = 300
# Without the current folder, where a stranger may have a random.py; -P is Python 3.11's.
_FOLLOW = (
    "import sys; sys.path = [path for path in sys.path if path]; "
    "from gatehub.training.parallel.follower import main; main()"
)


def choose_device(device: str, count: int) -> torch.device:
    """Return the first device of several.

    Args:
        device: "cpu" for processes that share the processor, "cuda" for as many GPUs; "auto" for
            GPUs where there are any.
        count: how many processes there are to be.

    Raises:
        DeviceError: there are fewer GPUs, or one of them was named for several processes.
    """
    first = find_device(device)
    if first.type == "cpu":
        return first
    if ":" in str(first):
        raise DeviceError(
            f"{count} devices are asked for, and {first} alone is named.",
            hint="Use cuda, or auto; CUDA_VISIBLE_DEVICES says which GPUs count.",
        )
    if count > (present := torch.cuda.device_count()):
        raise DeviceError(
            f"{count} devices are asked for, but there are {present} GPUs here.",
            hint=f"Ask for {present}, or use the processor (cpu).",
        )
    return torch.device("cuda", 0)


def check_team(size: int, *, batch_size: int, images: int, norm: str) -> None:
    """Refuse a training that so many processes cannot do as one would.

    Raises:
        TrainingError: a batch has fewer images than there are processes, or layers are normalised
            by the statistics of batches, of which each process sees only its share.
    """
    if size == 1:
        return
    if norm == "stats":
        raise TrainingError(
            "With norm 'stats', layers are normalised by the statistics of each batch, and each of "
            f"{size} devices would see only its share.",
            hint="Take norm 'affine', or one device.",
        )
    if (least := min(batch_size, images)) < size:
        raise TrainingError(
            f"A batch has {least} images, fewer than the {size} devices that are to share it.",
            hint="Ask for fewer devices, or larger batches (batch_size).",
        )


@contextmanager
def lead(device: torch.device, size: int) -> Iterator[Team]:
    """Start the other processes of a team, and end them at the end of the with block.

    Args:
        device: from `choose_device`; each process has one of its type.
        size: how many processes there are, with this one.

    Raises:
        TrainingError: the package accelerate is not installed.
    """
    check_accelerate()
    cpu = device.type == "cpu"
    before = torch.get_num_threads()
    threads = max(1, before // (size if cpu else 1))
    # They meet here. A launcher's processes meet where every machine can connect.
    with socket.create_server((HOST, 0)) as listening:
        port = listening.getsockname()[1]
        store = TCPStore(
            HOST,
            port,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )
    with ExitStack() as held:
        others = [
            held.enter_context(_started(os.getpid(), port, rank, size, device, threads=threads))
            for rank in range(1, size)
        ]
        held.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)

        def gather() -> None:
            if any(other.hear() != READY for other in others):
                raise RuntimeError("a process ended before it began")
            held.enter_context(joined(cpu=cpu, local=True, store=store, rank=0, size=size))

        yield Team(0, size, join=gather, explain=lambda: _explain(others))


@dataclass(frozen=True, slots=True)
class _Follower:
    """A process that takes steps beside this one, and what it has printed."""

    process: subprocess.Popen[bytes]
    printed: IO[bytes]

    def hear(self) -> bytes:
        """Return the next line of what it says to this process; nothing when it is gone."""
        return self.process.stdout.readline() if self.process.stdout else b""


@contextmanager
def _started(*arguments: object, threads: int) -> Iterator[_Follower]:
    # Without a name, so that nothing is left however this process ends.
    with TemporaryFile() as printed:
        # In a session of its own: Ctrl-C is for the first process, which ends the others.
        process = subprocess.Popen(
            [sys.executable, "-c", _FOLLOW, *map(str, arguments)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=printed,
            start_new_session=True,
        )
        with process:
            try:
                yield _Follower(process, printed)
            finally:
                process.kill()


def _explain(others: Sequence[_Follower]) -> GatehubError:
    """Say why an exchange failed: by what the process said that ended, or by how it ended."""
    deadline = time.monotonic() + _LAST_WORDS_S
    while time.monotonic() < deadline:
        for rank, other in enumerate(others, start=1):
            status = other.process.poll()
            if status in (None, LOST):
                continue
            with suppress(ValueError):
                said = json.loads(other.hear() if status == 1 else b"")
                return TrainingError(said["message"], hint=said["hint"])
            return _describe_end(f"Process {rank + 1} of {1 + len(others)}", other)
        time.sleep(_LOOKS_EVERY_S)
    return TrainingError("The processes of this training have lost each other.")


def _describe_end(name: str, other: _Follower) -> TrainingError:
    status = other.process.returncode
    if status < 0:
        return TrainingError(
            f"{name} was killed (signal {-status}), perhaps for lack of memory.",
            hint="Use fewer devices or smaller batches (batch_size).",
        )
    other.printed.seek(0)
    said = other.printed.read().decode(errors="replace").strip()
    last = said.splitlines()[-1][:_SHOWN_CHARACTERS] if said else f"status {status}"
    return TrainingError(f"{name} ended: {last}")
