"""Whether an ONNX file is what was exported: sound, unchanged, and with the answers it promises."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from gatehub._arguments import checked
from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer_text
from gatehub._text import quote
from gatehub.errors import ExportError, ExportFormatError, ExportIntegrityError
from gatehub.export._digests import Digests, has_digests, is_sealed, read_metadata, read_opsets
from gatehub.export._record import Record
from gatehub.export.parity import (
    DEFAULT_TOLERANCE,
    INPUT_NAME,
    OUTPUT_NAME,
    check_parity,
    first_line,
)

if TYPE_CHECKING:
    import onnx

# What protobuf can hold.
MAX_FILE_BYTES = 2**31 - 1
_SHOWN_EDITS = 5


class FileState(str, Enum):
    """What a sound file is.

    Every one is sound ONNX and answers the three images of its probe, normalised values from -2 to
    2, as it promises, within the tolerance. Beyond that,

    `as_exported` is, byte for byte, what was exported.
    `changed` has the labels, preprocessing and other entries with which it was exported, and each
    weight and node that can be recognised is unchanged; `ExportReport.uncompared` says which cannot
    be. What was made anew, by an optimiser or by somebody else, was checked by the probe alone: a
    change that does not show in its answers passes.
    `unrecorded` was exported before there were digests, and was checked by the probe alone.

    A file that is none of these is refused, and the error names what was edited, or how far its
    answers are off.
    """

    as_exported = "as exported"
    changed = "same answers, file changed"
    unrecorded = "same answers, no digests"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an exported file is, and how close its answers are.

    Args:
        path: the file.
        opset: version of ONNX's operators in it.
        bytes: its size.
        max_abs_diff: largest absolute difference of a logit to the folded PyTorch model.
        max_rel_diff: that, divided by the largest logit.
        state: whether it is, byte for byte, what was exported.
        uncompared: for a changed file, a sentence for each kind of parts for which only the answers
            speak.
    """

    path: Path
    opset: int
    bytes: int
    max_abs_diff: float
    max_rel_diff: float
    state: FileState
    uncompared: tuple[str, ...] = ()


@checked(ExportError)
def verify_onnx(path: str | Path, *, tolerance: float = DEFAULT_TOLERANCE) -> ExportReport:
    """Check an exported file on its own: sound ONNX, unchanged, and the answers it promises.

    What an optimiser did to it passes, if the answers are the same; `ExportReport.state` tells.
    Digests in the file show other changes. They are checksums, not a signature: whoever computes
    them anew after a change is not found out.

    Args:
        path: from `export_onnx`, whatever its name is now.
        tolerance: as there.

    Raises:
        ExportFormatError: not ONNX, not one of gatehub's, or nothing that can be run.
        ExportIntegrityError: what it says of itself, or a weight, is not what was exported.
        ParityError: it gives other answers than when it was exported.
        ExportError: it cannot be read.
    """
    file = Path(path)
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise ExportFormatError(  # reading a pipe or a device may never end
                f"'{file}' is no regular file, so it is no ONNX model.", hint="Check the path."
            )
        if found.st_size > MAX_FILE_BYTES:
            raise ExportFormatError(
                f"'{file}' has {found.st_size:,} bytes; an ONNX model has at most "
                f"{MAX_FILE_BYTES:,}."
            )
        data = file.read_bytes()
    except OSError as error:
        raise ExportError(
            f"'{file}' cannot be read ({error.strerror}).", hint="Check the path."
        ) from error
    if is_pointer_text(data):
        raise ExportFormatError(describe_pointer(f"'{file}'"), hint=advise_pull(file.parent))
    return examine(data, file, subject=f"'{file}'", tolerance=tolerance)


def examine(data: bytes, path: Path, *, subject: str, tolerance: float) -> ExportReport:
    """Check the bytes of a file against what they say of themselves; see `verify_onnx`.

    Args:
        data: the file's.
        path: where it is, or will be.
        subject: the file, for the errors.
        tolerance: largest relative difference of a logit that passes.
    """
    proto, metadata = _parse(data, subject)
    record = Record.from_metadata(metadata, subject=subject)
    state, uncompared = _compare(data, proto, metadata, record, subject=subject)
    difference = check_parity(
        data, record.probe_images(), record.probe_logits, tolerance=tolerance, subject=subject
    )
    return ExportReport(
        path=path,
        opset=read_opsets(proto)[""],
        bytes=len(data),
        max_abs_diff=difference.max_abs,
        max_rel_diff=difference.max_rel,
        state=state,
        uncompared=uncompared,
    )


def _parse(data: bytes, subject: str) -> tuple[onnx.ModelProto, dict[str, str]]:
    import onnx

    try:
        proto = onnx.load_model_from_string(data)
        metadata = read_metadata(proto)
        # Before the checker, which would look for the other file.
        if any(v.data_location == onnx.TensorProto.EXTERNAL for v in proto.graph.initializer):
            raise ValueError("weights in another file")
        onnx.checker.check_model(proto)
        if "" not in read_opsets(proto):
            raise ValueError("none of its operators are ONNX's")
    except Exception as error:  # protobuf's, the checker's, and text that is not UTF-8
        raise ExportFormatError(
            f"{subject} is not a valid ONNX model ({first_line(error)}).",
            hint="Fetch or export it again.",
        ) from error
    return proto, metadata


def _compare(
    data: bytes,
    proto: onnx.ModelProto,
    metadata: Mapping[str, str],
    record: Record,
    *,
    subject: str,
) -> tuple[FileState, tuple[str, ...]]:
    """Hold a file against its digests.

    Returns:
        What it is, and what could not be compared.

    Raises:
        ExportIntegrityError: it was edited.
    """
    edits = _find_ends(proto)
    if not edits and record.format_version == 1 and not has_digests(metadata):
        return FileState.unrecorded, ()
    if not edits and is_sealed(data, metadata, subject=subject):
        return FileState.as_exported, ()
    uncompared: tuple[str, ...] = ()
    if not edits:
        edits, uncompared = Digests.from_metadata(metadata, subject=subject).compare(proto)
    if edits:
        shown = edits[:_SHOWN_EDITS]
        more = [f"{len(edits) - len(shown)} more"] if len(edits) > len(shown) else []
        raise ExportIntegrityError(
            f"{subject} was edited after its export: {', '.join([*shown, *more])}.",
            hint="Fetch or export it again.",
        )
    return FileState.changed, uncompared


def _find_ends(proto: onnx.ModelProto) -> list[str]:
    """Name inputs and outputs that stand beside those of an export: no optimiser adds any.

    A program may read the first output, or give a weight that is an input as well.
    """
    ends = (("input", proto.graph.input, INPUT_NAME), ("output", proto.graph.output, OUTPUT_NAME))
    return [
        f"{kind} {quote(value.name, 80)}"
        for kind, values, own in ends
        for value in values
        if value.name != own and own in [other.name for other in values]
    ]
