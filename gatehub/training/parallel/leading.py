"""The first process's part: starting the others, and ending them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import torch.distributed as dist

from gatehub.backbone.device import find_device
from gatehub.errors import DeviceError, GatehubError, TrainingError
from gatehub.training.parallel.follower import LOST
from gatehub.training.parallel.plan import Plan, write_plan
from gatehub.training.parallel.team import Team, join

_LOOKS_EVERY_S = 0.05
# How long a process whose connection broke may take to say why.
_LAST_WORDS_S = 10.0
_SHOWN_CHARACTERS = 300
# Without the current folder, where a stranger may have a random.py; -P is Python 3.11's.
_FOLLOW = (
    "import sys; sys.path = [path for path in sys.path if path]; "
    "from gatehub.training.parallel.follower import main; main()"
)


def choose_devices(device: str, count: int) -> tuple[torch.device, ...]:
    """Return a device for each process.

    Args:
        device: "cpu" for processes that share the processor, "cuda" for as many GPUs; "auto" for
            GPUs where there are any. For one process, whatever `find_device` takes.
        count: how many processes there are.

    Raises:
        DeviceError: there are fewer GPUs, or one of them was named for several processes.
    """
    first = find_device(device)
    if count == 1:
        return (first,)
    if first.type == "cpu":
        return (first,) * count
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
    return tuple(torch.device("cuda", index) for index in range(count))


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
def lead(plan: Plan) -> Iterator[Team]:
    """Start the other processes of a training, and end them at the end of the with block."""
    size = len(plan.devices)
    before = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="gatehub-") as name:
        folder = Path(name)
        write_plan(folder, plan)
        others = [_start(folder, rank) for rank in range(1, size)]
        torch.set_num_threads(plan.threads)

        def gather() -> None:
            while not all((folder / f"ready-{rank}").exists() for rank in range(1, size)):
                if any(process.poll() is not None for process in others):
                    raise RuntimeError("a process ended before it began")
                time.sleep(_LOOKS_EVERY_S)
            join(folder, 0, size)

        try:
            yield Team(0, size, join=gather, explain=lambda: _explain(folder, others))
        finally:
            torch.set_num_threads(before)
            for process in others:
                process.kill()
                process.wait()
            if dist.is_initialized():
                dist.destroy_process_group()


def _start(folder: Path, rank: int) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C is for the first process, which ends the others.
    with (folder / f"said-{rank}").open("wb") as said:
        return subprocess.Popen(
            [
                *(sys.executable, "-c", _FOLLOW),
                *(str(folder), str(rank), str(os.getpid())),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )


def _explain(folder: Path, others: Sequence[subprocess.Popen[bytes]]) -> GatehubError:
    """Say why an exchange failed: by what the process said that ended, or by how it ended."""
    deadline = time.monotonic() + _LAST_WORDS_S
    while time.monotonic() < deadline:
        for rank, process in enumerate(others, start=1):
            if process.poll() in (None, LOST):
                continue
            with suppress(OSError, ValueError):
                said = json.loads((folder / f"failed-{rank}").read_text(encoding="utf-8"))
                return TrainingError(said["message"], hint=said["hint"])
            return _describe_end(folder, rank, 1 + len(others), process.returncode)
        time.sleep(_LOOKS_EVERY_S)
    return TrainingError("The processes of this training have lost each other.")


def _describe_end(folder: Path, rank: int, size: int, status: int) -> TrainingError:
    if status < 0:
        return TrainingError(
            f"Process {rank + 1} of {size} was killed (signal {-status}), perhaps for lack of "
            "memory.",
            hint="Use fewer devices or smaller batches (batch_size).",
        )
    said = (folder / f"said-{rank}").read_text(encoding="utf-8", errors="replace").strip()
    last = said.splitlines()[-1][:_SHOWN_CHARACTERS] if said else f"status {status}"
    return TrainingError(f"Process {rank + 1} of {size} ended: {last}")
