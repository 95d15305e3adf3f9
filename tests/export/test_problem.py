"""An exported file says whether an image may have several labels, and from which scores on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from gatehub.adapter import Adapter
from gatehub.errors import ExportFormatError, ExportIntegrityError
from gatehub.export import FileState, export_onnx, verify_onnx
from gatehub.export._record import Record
from gatehub.problem import ONE_LABEL, Problem
from tests.export.exports import LABELS, make_resnet
from tests.export.test_verify import set_entry
from tests.tiny import make_trained

THRESHOLDS = [0.5, 0.25, 1.0, 0.1]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a task of several labels an image."""
    backbone = make_resnet()
    adapter = Adapter.from_model(make_trained(backbone, labels=LABELS), task="birds")
    path = tmp_path_factory.mktemp("export") / "birds.onnx"
    export_onnx(backbone, adapter.with_thresholds(THRESHOLDS), path)
    return path


def read_entries(file: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def test_the_metadata_says_how_to_read_the_logits(file: Path) -> None:
    entries = read_entries(file)
    told = json.loads(entries["gatehub.problem"])
    assert told == {"type": "multi-label", "thresholds": THRESHOLDS}
    record = Record.from_metadata(entries, subject="it")
    assert record.problem == Problem(thresholds=tuple(THRESHOLDS))
    assert verify_onnx(file).state is FileState.as_exported
    # Other entries are those of a file of one label an image.
    plain = Record(**{**{n: getattr(record, n) for n in record.__slots__}, "problem": ONE_LABEL})
    rest = {key: value for key, value in record.to_metadata().items() if key != "gatehub.problem"}
    assert plain.to_metadata() == rest
    assert Record.from_metadata(rest, subject="it").problem == ONE_LABEL


@pytest.mark.parametrize(
    "change", [None, json.dumps({"type": "multi-label", "thresholds": [0.5, 0.25, 1.0, 0.2]})]
)
def test_other_thresholds_are_an_edit(file: Path, tmp_path: Path, change: str | None) -> None:
    model = onnx.load(file)
    set_entry(model, "problem", change)
    onnx.save(model, tmp_path / "edited.onnx")
    with pytest.raises(ExportIntegrityError, match=r"edited after its export: .*problem"):
        verify_onnx(tmp_path / "edited.onnx")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSON"),
        ("[]", "not an object"),
        ('{"type": "multi-label"}', "thresholds"),
        ('{"type": "single-label", "thresholds": [0, 0, 0, 0]}', "type multi-label"),
        ('{"type": "multi-label", "thresholds": [0, 0, 0]}', "a threshold for each of 4 labels"),
        ('{"type": "multi-label", "thresholds": [0, 0, 0, 2]}', "label 3 is 2; expected a number"),
        ('{"type": "multi-label", "thresholds": [0, 0, 0, NaN]}', "label 3 is nan; expected"),
        ('{"type": "multi-label", "thresholds": [0, 0, 0, "1"]}', "label 3 is '1'; expected"),
        ('{"type": "multi-label", "thresholds": 1}', "a threshold for each of 4 labels"),
        ('{"type": "multi-label", "thresholds": [0, 0, 0, 0], "x": 1}', "with thresholds"),
    ],
)
def test_thresholds_that_are_none_are_refused(file: Path, text: str, reason: str) -> None:
    entries = {**read_entries(file), "gatehub.problem": text}
    with pytest.raises(ExportFormatError, match=f"'gatehub.problem' .*{reason}"):
        Record.from_metadata(entries, subject="it")


def test_sigmoids_of_the_output_and_the_thresholds_give_the_labels(file: Path) -> None:
    import onnxruntime

    record = Record.from_metadata(read_entries(file), subject="it")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    [logits] = session.run(["logits"], {"images": record.probe_images()})
    scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert scores == pytest.approx(1 / (1 + np.exp(-record.probe_logits.astype(np.float64))), 1e-3)
    assert record.problem.thresholds is not None
    assert (scores >= np.array(record.problem.thresholds)).shape == (3, len(LABELS))
