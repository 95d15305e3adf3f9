"""A file that is checked on its own: what passes, and one sentence for each way it does not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gatehub.errors import ExportError, ExportFormatError, ParityError
from gatehub.export import verify_onnx
from tests.export.exports import Exported

GOLDEN = Path(__file__).parent / "golden"
KEYS = [
    "version",
    "task",
    "labels",
    "preprocessing",
    "backbone",
    "adapter_digest",
    "probe",
    "file_digest",
    "digests",
    "digests_digest",
]


def edit(exported: Exported, path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """Write a changed copy of an export."""
    model = onnx.load(exported.report.path)
    change(model)
    onnx.save(model, path)
    return path


def edit_metadata(exported: Exported, path: Path, key: str, value: str | None) -> Path:
    """Write a copy of an export with one entry exchanged, or without it."""
    return edit(exported, path, lambda model: set_entry(model, key, value))


def set_entry(model: onnx.ModelProto, key: str, value: str | None) -> None:
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    del metadata[f"gatehub.{key}"]
    if value is not None:
        metadata[f"gatehub.{key}"] = value
    helper.set_model_props(model, metadata)


def forget_digests(model: onnx.ModelProto) -> None:
    """Make an export one of format version 1."""
    set_entry(model, "format_version", "1")
    for key in ("file_digest", "digests", "digests_digest"):
        set_entry(model, key, None)


def find_weight(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (found,) = (value for value in model.graph.initializer if value.name == name)
    return found


def scale_weight(model: onnx.ModelProto, name: str, factor: float) -> None:
    weight = find_weight(model, name)
    values = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, name))


def read_metadata(exported: Exported, key: str) -> str:
    model = onnx.load(exported.report.path)
    return next(v.value for v in model.metadata_props if v.key == f"gatehub.{key}")


def test_an_export_passes_with_the_figures_of_its_making(
    exported: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify_onnx(str(exported.report.path)) == exported.report
    assert capfd.readouterr() == ("", "")


def test_other_answers_are_found_without_digests(exported: Exported, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        forget_digests(model)
        scale_weight(model, model.graph.initializer[0].name, 1.01)

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(
        ParityError, match=r"birds.onnx' answers differently .* off and on"
    ) as caught:
        verify_onnx(path)
    assert "the file was changed afterwards" in str(caught.value)
    assert verify_onnx(path, tolerance=1.0).max_rel_diff == caught.value.max_rel_diff


def test_an_optimisation_that_changes_the_answers_is_named(
    standardised: Exported, tmp_path: Path
) -> None:
    """The export is made so that Pad_Fusion leaves it alone; with plain zeros it would not."""

    def change(model: onnx.ModelProto) -> None:
        forget_digests(model)
        (pad,) = (node for node in model.graph.node if node.op_type == "Pad")
        value = find_weight(model, pad.input[2])
        assert 0 < numpy_helper.to_array(value) < 1e-37
        value.CopyFrom(numpy_helper.from_array(np.float32(0), value.name))

    verify_onnx(standardised.report.path)
    path = edit(standardised, tmp_path / "birds.onnx", change)
    with pytest.raises(ParityError, match=r"with optimisations on, max abs .*Pad_Fusion"):
        verify_onnx(path)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 64, b'{"task": "birds"}', b"\x89PNG\r\n\x1a\n" + b"\xff" * 99]
)
def test_something_else_than_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "birds.onnx"
    path.write_bytes(data)

    with pytest.raises(ExportFormatError, match=r"birds.onnx' is not a valid ONNX model") as caught:
        verify_onnx(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(exported: Exported, tmp_path: Path, share: float) -> None:
    data = exported.report.path.read_bytes()
    path = tmp_path / "birds.onnx"
    path.write_bytes(data[: int(share * len(data))])

    with pytest.raises(ExportFormatError, match="is not a valid ONNX model"):
        verify_onnx(path)


def test_onnx_of_another_origin_is_refused(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["logits"])], "relu", [images], [logits]
    )
    onnx.save(helper.make_model(graph), tmp_path / "relu.onnx")

    with pytest.raises(ExportFormatError, match="an ONNX model, but not one that gatehub exported"):
        verify_onnx(tmp_path / "relu.onnx")


def test_a_newer_format_is_refused(exported: Exported, tmp_path: Path) -> None:
    path = edit_metadata(exported, tmp_path / "birds.onnx", "format_version", "3")

    with pytest.raises(ExportFormatError, match=r"is of format version '3'; .* versions 1, 2\."):
        verify_onnx(path)


@pytest.mark.parametrize("key", KEYS)
def test_missing_metadata_is_named(exported: Exported, tmp_path: Path, key: str) -> None:
    path = edit_metadata(exported, tmp_path / "birds.onnx", key, None)

    with pytest.raises(ExportFormatError, match=f"birds.onnx' has no 'gatehub.{key}' in its"):
        verify_onnx(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task", "../birds"),
        ("labels", '["gull", "heron", "gull", "tern"]'),
        ("labels", '["gull", "heron", "", "tern"]'),
        ("labels", '"gull"'),
        ("labels", "[]"),
        ("labels", "gull, heron"),
        ("labels", "[" * 100_000),
        ("preprocessing", "{}"),
        ("preprocessing", "[3, 48, 64]"),
        ("backbone", "resnet18"),
        ("backbone", '{"name": "resnet18", "digest": "12ab"}'),
        ("backbone", '{"name": "resnet18", "digest": 5}'),
        ("backbone", '{"name": 18, "digest": "' + 64 * "0" + '"}'),
        ("adapter_digest", "12ab"),
        ("probe", "{}"),
        ("probe", "null"),
        ("backbone", "null"),
    ],
)
def test_ill_formed_metadata_is_named(
    exported: Exported, tmp_path: Path, key: str, value: str
) -> None:
    path = edit_metadata(exported, tmp_path / "birds.onnx", key, value)

    with pytest.raises(ExportFormatError, match=f"has no 'gatehub.{key}' .* as gatehub writes it"):
        verify_onnx(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", [3, 48]),
        ("input_size", [3, 48.0, 64]),
        ("input_size", [3, 0, 64]),
        ("input_size", "3x48x64"),
        ("mean", None),
        ("crop_pct", "all"),
        ("resize", 64),
        ("image_rules", "white"),
        ("image_rules", {"version": 2, "background": [0, 0, 0]}),
        ("image_rules", {"version": 1, "background": [0, 0]}),
        ("image_rules", {"version": 1, "background": [0, 0, 0], "resize": 64}),
    ],
)
def test_ill_formed_preprocessing_is_refused(
    exported: Exported, tmp_path: Path, field: str, value: object
) -> None:
    fields = json.loads(read_metadata(exported, "preprocessing")) | {field: value}
    path = edit_metadata(exported, tmp_path / "birds.onnx", "preprocessing", json.dumps(fields))

    with pytest.raises(ExportFormatError, match=r"has no 'gatehub\.preprocessing'"):
        verify_onnx(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", None),
        ("seed", 0.5),
        ("shape", [3, 3, 64, 48]),
        ("shape", [2, 3, 48, 64]),
        ("logits", [[1.0, 2.0], [1.0]]),
        ("logits", [[1.0, 2.0, 3.0, float("nan")]] * 3),
        ("logits", [[1.0, 2.0, 3.0, 1e39]] * 3),
        ("logits", "none"),
    ],
)
def test_an_ill_formed_probe_is_refused(
    exported: Exported, tmp_path: Path, field: str, value: object
) -> None:
    fields = json.loads(read_metadata(exported, "probe")) | {field: value}
    path = edit_metadata(exported, tmp_path / "birds.onnx", "probe", json.dumps(fields))

    with pytest.raises(ExportFormatError, match=r"has no 'gatehub\.probe'"):
        verify_onnx(path)


def test_more_labels_than_logits_are_refused(exported: Exported, tmp_path: Path) -> None:
    labels = json.dumps(["gull", "heron", "tern", "rook", "jay"])
    path = edit_metadata(exported, tmp_path / "birds.onnx", "labels", labels)

    with pytest.raises(ExportFormatError, match=r"of shape \(3, 4\); expected \(3, 5\) for 5"):
        verify_onnx(path)


def test_other_answers_than_the_promised_ones_are_refused(
    exported: Exported, tmp_path: Path
) -> None:
    probe = json.loads(read_metadata(exported, "probe"))
    labels = json.dumps(["gull", "heron", "tern"])
    probe["logits"] = [row[:3] for row in probe["logits"]]
    path = edit_metadata(exported, tmp_path / "birds.onnx", "labels", labels)
    model = onnx.load(path)
    forget_digests(model)
    next(v for v in model.metadata_props if v.key == "gatehub.probe").value = json.dumps(probe)
    onnx.save(model, path)

    with pytest.raises(ParityError, match=r"birds.onnx': .* shape \(3, 4\); expected \(3, 3\)"):
        verify_onnx(path)


def test_another_input_is_refused(exported: Exported, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].name = "pixels"
        for node in model.graph.node:
            node.input[:] = ["pixels" if name == "images" else name for name in node.input]

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportFormatError, match=r"cannot be run by ONNX Runtime .* of 3 and of 1"):
        verify_onnx(path)


def test_a_batch_that_cannot_vary_is_refused(exported: Exported, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportFormatError, match=r"cannot be run by ONNX Runtime .* of 3 and of 1"):
        verify_onnx(path)


def test_weights_in_another_file_are_refused(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "birds.onnx"
    onnx.save(
        onnx.load(exported.report.path),
        path,
        save_as_external_data=True,
        location="birds.data",
        size_threshold=0,
    )

    with pytest.raises(
        ExportFormatError, match=r"is not a valid ONNX model .* weights in another file"
    ):
        verify_onnx(path)


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"cannot be read .* Check the path"):
        verify_onnx(tmp_path / name)


def test_a_file_beyond_what_onnx_can_hold_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "birds.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # takes no room on the disk

    with pytest.raises(ExportFormatError, match="has 2,147,483,648 bytes; an ONNX model has at"):
        verify_onnx(path)


def test_a_model_without_onnx_operators_is_refused(tmp_path: Path) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    node = helper.make_node("Gelu", ["images"], ["logits"], domain="com.microsoft")
    graph = helper.make_graph([node], "gelu", [images], [logits])
    imports = [helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports), tmp_path / "gelu.onnx")

    with pytest.raises(ExportFormatError, match=r"is not a valid ONNX model"):
        verify_onnx(tmp_path / "gelu.onnx")


def test_a_pipe_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "birds.onnx"
    try:
        os.mkfifo(path)
    except (AttributeError, OSError):
        pytest.skip("no pipes in the file system")

    with pytest.raises(ExportFormatError, match=r"birds.onnx' is no regular file"):
        verify_onnx(path)
