"""Three outcomes for a file: as exported; changed, with the same answers; edited, and how."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from gatehub.errors import ExportFormatError, ExportIntegrityError, GatehubError
from gatehub.export import FileState, verify_onnx
from gatehub.export._digests import Digests
from tests.export.exports import LABELS, Exported
from tests.export.test_verify import (
    GOLDEN,
    edit,
    edit_metadata,
    find_weight,
    forget_digests,
    read_metadata,
    scale_weight,
    set_entry,
)

Change = Callable[[onnx.ModelProto], object]


def test_an_export_is_as_exported_whatever_its_name(exported: Exported, tmp_path: Path) -> None:
    copy = tmp_path / "a model"
    copy.write_bytes(exported.report.path.read_bytes())

    assert exported.report.state is FileState.as_exported
    assert verify_onnx(copy).state.value == "as exported"


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_every_version_verify(version: int, tmp_path: Path) -> None:
    """What once was written stays readable; without digests nobody can say that it is the same."""
    path = GOLDEN / f"version{version}.onnx"
    states = {1: FileState.unrecorded, 2: FileState.as_exported}

    assert verify_onnx(path).state is states[version]


@pytest.mark.parametrize(
    ("key", "field", "value", "named"),
    [
        ("preprocessing", "mean", [0.5, 0.5, 0.5], "preprocessing.mean"),
        ("preprocessing", "std", [0.5, 0.5, 0.5], "preprocessing.std"),
        ("preprocessing", "crop_pct", 0.5, "preprocessing.crop_pct"),
        ("preprocessing", "interpolation", "nearest", "preprocessing.interpolation"),
        ("backbone", "name", "resnet34", "backbone.name"),
        ("backbone", "digest", "0" * 64, "backbone.digest"),
        ("backbone", "note", "mine", "backbone.note"),
        ("probe", "seed", 1, "probe.seed"),
    ],
)
def test_an_edited_field_is_named(
    exported: Exported, tmp_path: Path, key: str, field: str, value: object, named: str
) -> None:
    fields = json.loads(read_metadata(exported, key))
    assert fields.get(field) != value
    text = json.dumps(fields | {field: value}, ensure_ascii=False)
    path = edit_metadata(exported, tmp_path / "birds.onnx", key, text)

    with pytest.raises(ExportIntegrityError, match=rf"edited after its export: '{named}'\. Fetch"):
        verify_onnx(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", json.dumps(LABELS[::-1])),
        ("labels", json.dumps(LABELS)),  # escapes: the same names in another text
        ("task", "cars"),
        ("adapter_digest", "0" * 64),
        ("version", "9.9.9"),
        ("format_version", "1"),
    ],
)
def test_an_edited_entry_is_named(exported: Exported, tmp_path: Path, key: str, value: str) -> None:
    path = edit_metadata(exported, tmp_path / "birds.onnx", key, value)

    with pytest.raises(ExportIntegrityError, match=rf"edited after its export: '{key}'\. Fetch"):
        verify_onnx(path)


def test_a_promised_answer_that_moved_within_the_tolerance_is_named(
    exported: Exported, tmp_path: Path
) -> None:
    fields = json.loads(read_metadata(exported, "probe"))
    fields["logits"][2][0] *= 1 + 1e-6
    path = edit_metadata(exported, tmp_path / "birds.onnx", "probe", json.dumps(fields))

    with pytest.raises(ExportIntegrityError, match=r"'probe\.logits'"):
        verify_onnx(path)


def test_an_entry_of_gatehubs_that_was_added_or_stands_twice(
    exported: Exported, tmp_path: Path
) -> None:
    def add(key: str, value: str) -> Path:
        return edit(
            exported,
            tmp_path / "birds.onnx",
            lambda model: model.metadata_props.add(key=key, value=value),
        )

    with pytest.raises(ExportIntegrityError, match=r"'licence'"):
        verify_onnx(add("gatehub.licence", "mine"))
    with pytest.raises(ExportFormatError, match=r"'gatehub.labels' stands twice"):
        verify_onnx(add("gatehub.labels", '["a", "b", "c", "d"]'))
    assert verify_onnx(add("licence", "mine")).state is FileState.changed


def add_first_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["probabilities"]))
    value = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["b", len(LABELS)])
    model.graph.output.insert(0, value)


def add_last_output(model: onnx.ModelProto) -> None:
    name = model.graph.node[3].output[0]
    model.graph.output.append(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", "c", "h", "w"])
    )


def make_weight_an_input(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    value = helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
    model.graph.input.append(value)


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (add_first_output, "output 'probabilities'"),
        (add_last_output, "output '"),
        (make_weight_an_input, "input '"),
    ],
)
def test_an_input_or_output_of_its_own_is_an_edit(
    exported: Exported, tmp_path: Path, change: Change, named: str, digests: bool
) -> None:
    def edit_ends(model: onnx.ModelProto) -> None:
        change(model)
        if not digests:
            forget_digests(model)

    path = edit(exported, tmp_path / "birds.onnx", edit_ends)
    with pytest.raises(ExportIntegrityError, match=f"edited after its export: {named}"):
        verify_onnx(path)


def test_every_weight_is_watched_to_its_last_bit(exported: Exported, tmp_path: Path) -> None:
    names = [value.name for value in onnx.load(exported.report.path).graph.initializer]
    assert len(names) > 10
    for index, name in enumerate(names):

        def change(model: onnx.ModelProto, index: int = index) -> None:
            weight = model.graph.initializer[index]
            values = numpy_helper.to_array(weight).copy()
            values.view(np.uint8).reshape(-1)[-1 if values.dtype.kind == "i" else 0] ^= 1
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))

        path = edit(exported, tmp_path / "birds.onnx", change)
        with pytest.raises(ExportIntegrityError, match=f"export: weight '{name}'"):
            verify_onnx(path)


def test_many_edits_are_counted(exported: Exported, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        set_entry(model, "task", "cars")
        for weight in model.graph.initializer[:9]:
            values = numpy_helper.to_array(weight)
            weight.CopyFrom(numpy_helper.from_array(values * np.float32(2), weight.name))

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportIntegrityError, match=r"'task', (weight '[^']+', ){4}5 more\."):
        verify_onnx(path)


def test_a_node_that_answers_the_same_is_watched(exported: Exported, tmp_path: Path) -> None:
    """The windows of this pooling all lie in the image, so rounding up changes no answer."""

    def change(model: onnx.ModelProto) -> None:
        (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
        for attribute in [a for a in pool.attribute if a.name == "storage_order"]:
            pool.attribute.remove(attribute)
        pool.attribute.append(helper.make_attribute("storage_order", 1))

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportIntegrityError, match=r"export: the MaxPool node of '[^']+'\."):
        verify_onnx(path)


def test_a_constant_in_a_node_is_watched() -> None:
    def make(value: float) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [3])
        constant = helper.make_tensor("value", TensorProto.FLOAT, [1], [value])
        nodes = [
            helper.make_node("Constant", [], ["shift"], value=constant),
            helper.make_node("Add", ["images", "shift"], ["logits"]),
        ]
        return helper.make_model(helper.make_graph(nodes, "add", [images], [logits]))

    digests = Digests.of(make(1.0))
    assert digests.compare(make(1.0)).edits == []
    assert digests.compare(make(1.5)).edits == ["the Constant node of 'shift'"]


def test_a_weight_of_another_type_is_a_converters_and_no_edit() -> None:
    """Answers decide about it, as about everything that an optimiser makes anew."""

    def make(dtype: int, value: float) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", dtype, [3])
        logits = helper.make_tensor_value_info("logits", dtype, [3])
        shift = helper.make_tensor("shift", dtype, [1], [value])
        node = helper.make_node("Add", ["images", "shift"], ["logits"])
        return helper.make_model(helper.make_graph([node], "add", [images], [logits], [shift]))

    digests = Digests.of(make(TensorProto.FLOAT, 1.5))
    assert digests.compare(make(TensorProto.FLOAT16, 1.5)).edits == []
    assert digests.compare(make(TensorProto.FLOAT, 2.5)).edits == ["weight 'shift'"]


def test_an_optional_input_that_is_left_out_or_written_empty_is_the_same() -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [3])

    def make(*inputs: str) -> onnx.ModelProto:
        node = helper.make_node("Clip", inputs, ["logits"], name="clip")
        return helper.make_model(helper.make_graph([node], "clip", [images], [logits]))

    assert Digests.of(make("images")) == Digests.of(make("images", "", ""))
    assert Digests.of(make("images", "low")) != Digests.of(make("images", "", "low"))


def test_operators_that_no_node_has_hide_no_edit(exported: Exported, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        list_operators(model)
        node = model.graph.node[0]
        node.attribute.remove(next(a for a in node.attribute if a.name == "auto_pad"))

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportIntegrityError, match="export: the Conv node of"):
        verify_onnx(path)


def test_an_edited_weight_is_found_under_another_name(exported: Exported, tmp_path: Path) -> None:
    """By 1e-6, which no answer shows, and though an attribute was edited as well."""
    weights = onnx.load(exported.report.path).graph.initializer
    names = [value.name for value in weights if value.data_type == TensorProto.FLOAT]
    for name in names[:: len(names) // 6]:

        def change(model: onnx.ModelProto, name: str = name) -> None:
            scale_weight(model, name, 1 + 1e-6)
            rename_values(model)
            model.graph.node[0].attribute.pop()

        path = edit(exported, tmp_path / "birds.onnx", change)
        with pytest.raises(ExportIntegrityError, match=f"export: weight '{name}_new'"):
            verify_onnx(path)


def test_a_weight_that_has_the_values_of_another_is_found(
    exported: Exported, tmp_path: Path
) -> None:
    def change(model: onnx.ModelProto) -> None:
        one, other = (find_weight(model, f"layer{i}.0.conv2.weight_bias") for i in (1, 2))
        one.raw_data = other.raw_data[: len(one.raw_data)]
        find_weight(model, "layer1.0.conv1.weight_bias").raw_data = one.raw_data
        rename_values(model)

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(
        ExportIntegrityError, match=r"weight 'layer1\.0\.conv[12]\.weight_bias_new'"
    ):
        verify_onnx(path)


def test_weights_that_changed_places_under_their_names_are_edited() -> None:
    def make(first: float, second: float) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [3])
        weights = [
            helper.make_tensor(name, TensorProto.FLOAT, [1], [value])
            for name, value in (("shift", first), ("more", second))
        ]
        node = helper.make_node("Sum", ["images", "shift", "more"], ["logits"])
        return helper.make_model(helper.make_graph([node], "add", [images], [logits], weights))

    assert Digests.of(make(1, 2)).compare(make(2, 1)).edits == ["weight 'shift'", "weight 'more'"]


def clip(model: onnx.ModelProto) -> None:
    """Cut off values that no answer to the probe reaches."""
    node = model.graph.node[0]
    node.output[0], inner = "unclipped", node.output[0]
    model.graph.initializer.append(helper.make_tensor("limit", TensorProto.FLOAT, [], [1e6]))
    model.graph.node.insert(1, helper.make_node("Clip", ["unclipped", "", "limit"], [inner]))


def make_sparse(model: onnx.ModelProto) -> None:
    """Keep a weight in the field of weights that are mostly zeros."""
    weight = find_weight(model, "fc.bias")
    values = numpy_helper.to_array(weight)
    model.graph.initializer.remove(weight)
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(values, "fc.bias"),
            numpy_helper.from_array(np.arange(len(values)), "indices"),
            values.shape,
        )
    )


WEIGHTS = r"1 of its \d+ weights were not in the export, so they could not be compared: only its "
NODES = r"Its nodes are joined or named otherwise than in the export, so they could not be "


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda model: setattr(model, "ir_version", 7), []),
        (lambda model: rename_values(model), [NODES]),
        (clip, [WEIGHTS, NODES]),
        (make_sparse, [WEIGHTS]),
    ],
)
def test_a_changed_file_says_what_only_the_answers_speak_for(
    exported: Exported, tmp_path: Path, change: Change, told: list[str]
) -> None:
    report = verify_onnx(edit(exported, tmp_path / "birds.onnx", change))

    assert report.state is FileState.changed
    assert len(report.uncompared) == len(told)
    assert all(map(re.match, told, report.uncompared))


def rename_values(model: onnx.ModelProto) -> None:
    """Name weights and what flows between nodes otherwise, as optimisers do."""
    kept = {"images", "logits", ""}
    for value in model.graph.initializer:
        value.name = f"{value.name}_new"
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.input[:] = [name if name in kept else f"{name}_new" for name in node.input]
        node.output[:] = [name if name in kept else f"{name}_new" for name in node.output]


def store_as_floats(model: onnx.ModelProto) -> None:
    """Move weights to the other field in which ONNX may hold them."""
    for value in model.graph.initializer:
        if value.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(value).reshape(-1).tolist()
            value.CopyFrom(helper.make_tensor(value.name, value.data_type, value.dims, values))


def list_operators(model: onnx.ModelProto) -> None:
    """List operators that no node has, and ONNX's own by its other name."""
    del model.opset_import[:]
    model.opset_import.add(domain="ai.onnx", version=18)
    model.opset_import.add(domain="ai.onnx.ml", version=3)


def convert_version(model: onnx.ModelProto) -> None:
    model.CopyFrom(onnx.version_converter.convert_version(model, 20))


def infer_shapes(model: onnx.ModelProto) -> None:
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    model.graph.name = "inferred"


HARMLESS: dict[str, Change] = {
    "lower IR version": lambda model: setattr(model, "ir_version", 7),
    "higher IR version": lambda model: setattr(model, "ir_version", 10),
    "doc string": lambda model: setattr(model.graph, "doc_string", "Birds of the coast."),
    "doc string of a node": lambda model: setattr(model.graph.node[0], "doc_string", "First."),
    "doc string of an attribute": lambda model: setattr(
        model.graph.node[0].attribute[0], "doc_string", "Strides."
    ),
    "name of a node": lambda model: setattr(model.graph.node[0], "name", "first"),
    "producer": lambda model: setattr(model, "producer_name", "onnx-surgeon"),
    "shapes": infer_shapes,
    "names of values": rename_values,
    "fields of weights": store_as_floats,
    "operators": list_operators,
    "opset": convert_version,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_answer_passes_and_is_told(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    path = edit(exported, tmp_path / "birds.onnx", HARMLESS[name])

    assert verify_onnx(path).state.value == "same answers, file changed"


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
@pytest.mark.parametrize("of", ["exported", "standardised"])
def test_what_onnx_runtime_has_optimised_passes_and_is_told(
    of: str, level: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    export: Exported = request.getfixturevalue(of)
    path = tmp_path / "birds.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(export.report.path, options, providers=["CPUExecutionProvider"])

    assert verify_onnx(path).state is FileState.changed


def test_no_flipped_bit_goes_unseen(
    exported: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Most of them are in weights; the structure and the metadata lie at both ends."""
    data = exported.report.path.read_bytes()
    draw = random.Random(0)
    ends = [i for i in range(len(data)) if i < 4000 or i > len(data) - 8000]
    places = draw.sample(ends, 40) + draw.sample(range(len(data)), 40)
    refused = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << draw.randrange(8)
        path = tmp_path / "birds.onnx"
        path.write_bytes(flipped)
        try:
            assert verify_onnx(path).state is FileState.changed
        except GatehubError:  # and nothing else
            refused += 1

    assert refused > 60  # the others: names and shapes that nothing depends on
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        "{}",
        '{"nodes": []}',
        '{"record": {}, "wiring": "", "nodes": [], "weights": {}, "more": {}}',
        '{"record": [], "wiring": "", "nodes": [], "weights": {}}',
        '{"record": {}, "wiring": "", "nodes": [], "weights": {"fc.weight": 1}}',
        '{"record": {}, "wiring": "", "nodes": 5, "weights": {}}',
    ],
)
def test_ill_formed_digests_are_refused(exported: Exported, tmp_path: Path, text: str) -> None:
    def change(model: onnx.ModelProto) -> None:
        set_entry(model, "digests", text)
        set_entry(model, "digests_digest", hashlib.sha256(text.encode()).hexdigest())

    path = edit(exported, tmp_path / "birds.onnx", change)
    with pytest.raises(ExportFormatError, match=r"has no 'gatehub\.digests' in its metadata"):
        verify_onnx(path)


@pytest.mark.parametrize("key", ["digests", "digests_digest"])
def test_digests_that_do_not_agree_are_refused(
    exported: Exported, tmp_path: Path, key: str
) -> None:
    text = read_metadata(exported, key)
    path = edit_metadata(exported, tmp_path / "birds.onnx", key, text.replace("5", "6", 1))

    with pytest.raises(ExportFormatError, match=r"'gatehub\.digests_digest' .* was changed\)"):
        verify_onnx(path)


def test_without_digests_only_answers_can_be_checked(tmp_path: Path) -> None:
    model = onnx.load(GOLDEN / "version1.onnx")
    set_entry(model, "labels", '["Möwe", "heron", "gull"]')
    onnx.save(model, tmp_path / "birds.onnx")

    assert verify_onnx(tmp_path / "birds.onnx").state.value == "same answers, no digests"
