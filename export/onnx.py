"""A task as one ONNX file: folded, translated, checked, and only then put in its place."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from gatehub._arguments import checked
from gatehub._disk import replacing
from gatehub._file_kinds import may_run
from gatehub._text import shorten
from gatehub.adapter import Adapter
from gatehub.adapter.folder import ADAPTER_FILES, CONFIG_FILE
from gatehub.adapter.probe import PROBE_SEED, PROBE_TOLERANCE, check_probe, draw_images
from gatehub.backbone import Backbone
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import ExportError
from gatehub.export._digests import seal
from gatehub.export._record import Record
from gatehub.export._translation import MAX_OPSET, MIN_OPSET, translate
from gatehub.export.parity import DEFAULT_TOLERANCE
from gatehub.export.verification import MAX_FILE_BYTES, ExportReport, examine
from gatehub.gates.fold import fold

if TYPE_CHECKING:
    import onnx

_PLACE_HINT = "Name a file in a folder that exists and that you may write to."


@checked(ExportError)
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
    check_settings(path, opset=opset, tolerance=tolerance)
    # What takes seconds begins once the place is known to be writable.
    with _writing(path) as file, pin_settings():
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
        report = examine(data, Path(path), subject=subject, tolerance=tolerance)
        file.write(data)
    return report


@checked(ExportError)
def check_settings(
    path: str | Path, *, opset: int = MIN_OPSET, tolerance: float = DEFAULT_TOLERANCE
) -> None:
    """Refuse what `export_onnx` would refuse, before anything is loaded for it.

    Raises:
        ExportError: no such opset, a tolerance that checks nothing, or a place where a file would
            replace something else.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ExportError(
            f"ONNX opset {shorten(str(opset))} was asked for; expected {MIN_OPSET} to {MAX_OPSET}.",
            hint=f"{MIN_OPSET} is the one that most runtimes read.",
        )
    if not 0 <= tolerance < math.inf:
        raise ExportError(
            f"The tolerance is {shorten(str(tolerance))}; expected 0 or more.",
            hint="Leave it out for what sound exports keep to.",
        )
    _find_place(path)


def _find_place(path: str | Path) -> Path:
    """Return where a file will be written: a link stays, and what it leads to is replaced.

    Raises:
        ExportError: something would be lost there.
    """
    path = Path(path)
    try:
        place = Path(os.path.realpath(path))
        taken = os.path.lexists(place)
    except (OSError, ValueError) as error:  # a null character
        raise ExportError(f"'{path}' cannot be written ({error}).", hint=_PLACE_HINT) from error
    if os.path.isdir(place):
        raise ExportError(f"'{path}' is a folder; expected a file.", hint=_PLACE_HINT)
    if taken and not os.path.isfile(place):
        raise ExportError(f"'{path}' is no regular file, and is left as it is.", hint=_PLACE_HINT)
    if place.name in ADAPTER_FILES and os.path.isfile(place.with_name(CONFIG_FILE)):
        raise ExportError(
            f"'{path}' is a file of the adapter in '{place.parent}', and is left as it is.",
            hint="Choose another name.",
        )
    if may_run(place.name) and os.path.isfile(place.with_name(CONFIG_FILE)):
        raise ExportError(
            f"'{path}' would make the adapter in '{place.parent}' unloadable: a file of that name "
            "may run.",
            hint="Choose a name that ends in .onnx.",
        )
    return place


@contextmanager
def _writing(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes its place once it is whole; after an error it is gone."""
    try:
        with replacing(_find_place(path)) as file:
            yield file
    except OSError as error:
        raise ExportError(
            f"'{path}' cannot be written ({error.strerror}).", hint=_PLACE_HINT
        ) from error


def _check_size(proto: onnx.ModelProto, task: str) -> None:
    size = proto.ByteSize()
    if size > MAX_FILE_BYTES:
        raise ExportError(
            f"Task '{task}' takes {size:,} bytes as ONNX; one file holds at most "
            f"{MAX_FILE_BYTES:,}."
        )
