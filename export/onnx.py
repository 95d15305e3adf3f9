"""A task as one ONNX file: folded, translated, checked, and only then put in its place."""

from __future__ import annotations

import copy
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.probe import PROBE_SEED, PROBE_TOLERANCE, check_probe, draw_images
from gatehub.backbone import Backbone
from gatehub.errors import ExportError
from gatehub.export._digests import seal
from gatehub.export._record import Record
from gatehub.export._translation import MAX_OPSET, MIN_OPSET, translate
from gatehub.export.parity import DEFAULT_TOLERANCE
from gatehub.export.verification import MAX_FILE_BYTES, ExportReport, examine
from gatehub.gates.fold import fold

if TYPE_CHECKING:
    import onnx


def export_onnx(
    backbone: Backbone,
    adapter: Adapter,
    path: str | Path,
    *,
    opset: int = MIN_OPSET,
    tolerance: float = DEFAULT_TOLERANCE,
) -> ExportReport:
    """Write an adapter on its backbone as one ONNX file that knows nothing of gates.

    Input "images" (batch, C, H, W) float32, normalised; output "logits" (batch, classes)
    float32; the batch may have any size. The metadata says which task it is, how to prepare an
    image, and what `verify_onnx` needs. The file appears whole and checked, or not at all; one
    that was there before is replaced only then.

    Args:
        backbone: the one that the adapter was trained on.
        adapter: the task.
        path: the file, in a folder that exists.
        opset: version of ONNX's operators, 18 to 24. Older runtimes want a lower one.
        tolerance: largest difference of a logit that passes, relative to the largest logit.

    Raises:
        BackboneMismatchError: another backbone.
        SelfCheckError: the task answers its probe differently here.
        ParityError: ONNX Runtime's answers are further away than that.
        ExportError: the model cannot be translated or run, or the file cannot be written.
    """
    _check_settings(opset, tolerance)
    target = Path(path)
    with _replacing(target) as file:  # first of all, since what follows takes its time
        # Folding shares tensors with the backbone, which stays where and as it is.
        model = copy.deepcopy(fold(backbone, adapter)).to("cpu", torch.float32)
        images = draw_images(PROBE_SEED, adapter.preprocessing)
        with torch.inference_mode():
            logits = model(torch.from_numpy(images)).numpy()
        if not np.isfinite(logits).all():
            raise ExportError(
                f"Adapter '{adapter.task}' answers with NaN or infinity on {backbone.identity}, "
                "so there is nothing to check a file against.",
                hint="Train it again, at a lower rate.",
            )
        check_probe(
            adapter.probe,
            logits,
            tolerance=PROBE_TOLERANCE,
            task=adapter.task,
            where=f"{backbone.identity}, folded",
        )
        proto = translate(
            model, adapter.preprocessing.input_size, opset=opset, name=adapter.backbone.name
        )
        for key, value in Record.of(adapter, logits).to_metadata().items():
            proto.metadata_props.add(key=key, value=value)
        _check_size(proto, adapter.task)
        data = seal(proto)
        subject = f"The export of task '{adapter.task}' on {backbone.identity}"
        report = examine(data, target, subject=subject, tolerance=tolerance)
        file.write(data)
    return report


def _check_settings(opset: int, tolerance: float) -> None:
    if opset not in range(MIN_OPSET, MAX_OPSET + 1):
        raise ExportError(
            f"ONNX opset {opset} was asked for; expected {MIN_OPSET} to {MAX_OPSET}.",
            hint=f"{MIN_OPSET} is the one that most runtimes read.",
        )
    if not 0 <= tolerance < math.inf:
        raise ExportError(f"The tolerance is {tolerance}; expected a number from 0 on.")


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes its place once it is whole; after an error it is gone."""
    temporary = path.parent / f".gatehub-{secrets.token_hex(8)}.tmp"
    hint = "Name a file in a folder that exists and that you may write to."
    try:
        if path.is_dir():
            raise ExportError(f"'{path}' is a folder; expected a file.", hint=hint)
        # Not the tempfile module: its files are readable by their owner alone.
        file = temporary.open("xb")
    except OSError as error:
        raise ExportError(f"'{path}' cannot be written ({error.strerror}).", hint=hint) from error
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(f"'{path}' cannot be written ({error.strerror}).", hint=hint) from error
    finally:
        temporary.unlink(missing_ok=True)


def _check_size(proto: onnx.ModelProto, task: str) -> None:
    size = proto.ByteSize()
    if size > MAX_FILE_BYTES:
        raise ExportError(
            f"Task '{task}' takes {size:,} bytes as ONNX; one file holds at most "
            f"{MAX_FILE_BYTES:,}."
        )
