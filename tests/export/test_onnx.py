"""Exports: what they answer, what is in them, and what is left when one fails."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import gatehub
from gatehub.adapter import Adapter
from gatehub.adapter.folder import ADAPTER_FILES
from gatehub.adapter.probe import Probe
from gatehub.backbone import Backbone, digest_tensors
from gatehub.backbone.classifier import replace_classifier
from gatehub.errors import BackboneMismatchError, ExportError, ParityError, SelfCheckError
from gatehub.export import export_onnx
from gatehub.export._translation import translate
from tests.backbone.test_torch_settings import ALL as HOST_SETTINGS
from tests.export.exports import LABELS, Exported, export, make_depthwise, make_resnet
from tests.parity import Tolerance, assert_parity
from tests.tiny import make_backbone, make_trained

ONNX_RUNTIME = Tolerance(name="ONNX Runtime", relative=1e-5)


def check_answers(exported: Exported, *, batch: int) -> None:
    """Compare the file, in ONNX Runtime as it comes, with the gated model that was trained."""
    images = torch.randn(
        batch,
        *exported.adapter.preprocessing.input_size,
        generator=torch.Generator().manual_seed(2),
    )
    session = onnxruntime.InferenceSession(exported.report.path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        assert_parity(torch.from_numpy(found), exported.model(images), ONNX_RUNTIME)


def read_opset(path: Path) -> dict[str, int]:
    return {entry.domain: entry.version for entry in onnx.load(path).opset_import}


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_file_answers_as_the_gated_model_at_any_batch_size(
    exported: Exported, batch: int
) -> None:
    check_answers(exported, batch=batch)


def test_standardised_kernels_and_padded_pooling(standardised: Exported) -> None:
    check_answers(standardised, batch=2)
    assert read_opset(standardised.report.path) == {"": 20}


def test_depthwise_and_pointwise_kernels(tmp_path: Path) -> None:
    exported = export(make_depthwise(), tmp_path / "birds.onnx", opset=22)

    check_answers(exported, batch=2)
    assert read_opset(exported.report.path) == {"": 22}
    assert exported.report.opset == 22


def test_the_report_tells_what_was_written(exported: Exported) -> None:
    report = exported.report

    assert report.path.stat().st_size == report.bytes
    assert [report.path] == list(report.path.parent.iterdir())
    assert read_opset(report.path) == {"": report.opset} == {"": 18}
    assert 0 < report.max_rel_diff <= ONNX_RUNTIME.relative
    assert report.max_abs_diff > 0


def test_the_graph_is_that_of_the_plain_model(exported: Exported) -> None:
    """Gates cost nothing: the same operators, and weights of the same shapes."""
    model = copy.deepcopy(exported.backbone.model)
    replace_classifier(model, len(LABELS))
    plain = translate(model, (3, 48, 64), opset=18, name="the plain model").graph
    folded = onnx.load(exported.report.path).graph

    assert [node.op_type for node in folded.node] == [node.op_type for node in plain.node]
    assert sorted((v.name, *v.dims) for v in folded.initializer) == sorted(
        (v.name, *v.dims) for v in plain.initializer
    )


def test_the_metadata_says_what_it_is_and_how_to_use_it(exported: Exported) -> None:
    model = onnx.load(exported.report.path)
    metadata = {entry.key.removeprefix("gatehub."): entry.value for entry in model.metadata_props}
    probe = json.loads(metadata.pop("probe"))
    adapter = exported.adapter

    assert json.loads(metadata.pop("labels")) == list(LABELS)
    assert json.loads(metadata.pop("backbone")) == {
        "name": exported.backbone.identity.name,
        "digest": exported.backbone.digest,
    }
    assert json.loads(metadata.pop("preprocessing")) == json.loads(
        json.dumps(asdict(adapter.preprocessing))
    )
    digests = {metadata.pop(key) for key in ("digests", "digests_digest", "file_digest")}
    assert len(digests) == 3
    assert metadata == {
        "format_version": "2",
        "version": gatehub.__version__,
        "task": "birds",
        "adapter_digest": adapter.digest,
    }
    # The recipe in the module's docstring, without gatehub.
    images = np.random.RandomState(probe["seed"]).uniform(-2, 2, probe["shape"])
    with torch.no_grad():
        expected = exported.model(torch.from_numpy(images.astype(np.float32)))
    assert probe["shape"] == [3, 3, 48, 64]
    assert_parity(torch.tensor(probe["logits"]), expected, ONNX_RUNTIME)


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(exported: Exported) -> None:
    data = exported.report.path.read_bytes()

    for trace in ("site-packages", "stack_trace", "forward_features", str(Path.cwd())):
        assert trace.encode() not in data


def test_the_backbone_stays_as_it_is(exported: Exported) -> None:
    fresh = make_resnet()

    assert digest_tensors(exported.backbone.state_dict()) == digest_tensors(fresh.state_dict())


class Deceptive(nn.Module):
    """Answers otherwise while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.01 if torch.compiler.is_compiling() else x


class Moody(nn.Module):
    """Decides by the values it sees, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def make_task(layer: nn.Module) -> tuple[Backbone, Adapter]:
    """A task on a backbone with one more layer."""
    model = make_resnet().model
    model.act1 = nn.Sequential(model.act1, layer)
    backbone = Backbone(model)
    return backbone, Adapter.from_model(make_trained(backbone), task="birds")


def test_wrong_answers_leave_the_old_file_and_nothing_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    backbone, adapter = make_task(Deceptive())
    path = tmp_path / "birds.onnx"
    path.write_bytes(b"the last good one")

    with pytest.raises(
        ParityError,
        match=r"The export of task 'birds' on .* \(digest .*\) answers differently from the "
        r"folded model: .* optimisations off and on, max abs .*, relative 0\.0.*, tolerance 0\.000",
    ) as caught:
        export_onnx(backbone, adapter, path)

    assert 1e-3 < caught.value.max_rel_diff < 2e-2
    assert caught.value.max_abs_diff > 0
    assert path.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")
    assert [record.message for record in caplog.records if record.levelname != "DEBUG"] == []
    assert logging.getLogger("torch").level < logging.ERROR


def test_a_model_that_cannot_be_translated_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone, adapter = make_task(Moody())

    with pytest.raises(
        ExportError,
        match=r"resnet18 cannot be translated to ONNX by torch .*(data-dependent|a batch of 2\))",
    ) as caught:
        export_onnx(backbone, adapter, tmp_path / "birds.onnx")

    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""  # torch shows on stderr how far it came


@pytest.mark.parametrize("opset", [17, 25, -1, 18.0, True, "18", None, "1" * 999])
def test_an_opset_that_would_not_be_honoured_is_refused(
    exported: Exported, tmp_path: Path, opset: Any
) -> None:
    asked = str(opset)[:9]
    value = rf"ONNX opset {asked} was asked for; expected 18 to 24"
    with pytest.raises(ExportError, match=rf"{value}|{asked}.* as opset; expected int"):
        export_onnx(exported.backbone, exported.adapter, tmp_path / "task.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tolerance", [-1e-9, float("nan"), float("inf"), None, "tight"])
def test_a_tolerance_that_checks_nothing_is_refused(
    exported: Exported, tmp_path: Path, tolerance: Any
) -> None:
    with pytest.raises(
        ExportError, match=rf"(is {tolerance}; expected 0 or more|as tolerance; expected float)"
    ):
        export_onnx(
            exported.backbone, exported.adapter, tmp_path / "task.onnx", tolerance=tolerance
        )


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing/birds.onnx", "cannot be written (No such file"),
        ("file/birds.onnx", "cannot be written (Not a directory"),
        ("folder", "is a folder; expected a file"),
        ("n" * 300 + "/birds.onnx", "cannot be written (File name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused(
    exported: Exported, tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(ExportError, match=re.escape(reason)) as caught:
        export_onnx(exported.backbone, exported.adapter, tmp_path / place)

    assert caught.value.hint == "Name a file in a folder that exists and that you may write to."
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(exported: Exported, tmp_path: Path) -> None:
    """What a killed export left beside that is removed; what only looks like it stays."""
    link, store = tmp_path / "current.onnx", tmp_path / "store"
    store.mkdir()
    (store / f".gatehub-{'0' * 16}.tmp").write_bytes(b"half")
    (store / ".gatehub-notes.tmp").write_bytes(b"mine")
    (store / "birds.onnx").write_bytes(b"an older one")
    link.symlink_to(store / "birds.onnx")

    report = export_onnx(exported.backbone, exported.adapter, link)

    assert report.path == link
    assert link.readlink() == store / "birds.onnx"
    assert link.read_bytes() == exported.report.path.read_bytes()
    assert sorted(path.name for path in store.iterdir()) == [".gatehub-notes.tmp", "birds.onnx"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current.onnx", "store"]


def test_a_link_that_leads_in_a_circle_is_refused(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")

    with pytest.raises(ExportError, match="one' is no regular file, and is left as it is"):
        export_onnx(exported.backbone, exported.adapter, tmp_path / "one")
    assert (tmp_path / "one").is_symlink()


def test_nothing_that_is_no_file_is_replaced(exported: Exported, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    try:
        os.mkfifo(pipe)
    except (AttributeError, OSError):
        pytest.skip("no pipes in the file system")

    with pytest.raises(ExportError, match="pipe' is no regular file, and is left as it is"):
        export_onnx(exported.backbone, exported.adapter, pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["torch.py", "model.pt", "x.pkl", "lib.so.1"])
def test_nothing_that_makes_an_adapter_unloadable_is_written(
    exported: Exported, adapter_folder: Path, name: str
) -> None:
    with pytest.raises(ExportError, match=f"{name}' would make the adapter in .* unloadable"):
        export_onnx(exported.backbone, exported.adapter, adapter_folder / name)
    assert not (adapter_folder / name).exists()


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_the_files_of_an_adapter_are_not_replaced(
    exported: Exported, adapter_folder: Path, name: str
) -> None:
    before = {path.name: path.read_bytes() for path in adapter_folder.iterdir()}

    with pytest.raises(ExportError, match=f"{name}' is a file of the adapter in '.*birds'"):
        export_onnx(exported.backbone, exported.adapter, adapter_folder / name)
    assert {path.name: path.read_bytes() for path in adapter_folder.iterdir()} == before


@pytest.mark.parametrize(
    ("backbone", "adapter", "path", "sentence"),
    [
        (None, None, "x.onnx", "export_onnx() got None as backbone; expected Backbone."),
        ("resnet18", None, "x.onnx", "export_onnx() got 'resnet18' (str) as backbone; expected"),
        ("{backbone}", "birds", "x.onnx", "export_onnx() got 'birds' (str) as adapter; expected"),
        ("{backbone}", "{adapter}", None, "export_onnx() got None as path; expected str or Path"),
        ("{backbone}", "{adapter}", b"x", "export_onnx() got b'x' (bytes) as path; expected str"),
        (
            "{backbone}",
            "{adapter}",
            "x\0.onnx",
            ".onnx' (str) as path, which is neither a path nor a name.",
        ),
        (
            "{backbone}",
            "{adapter}",
            "",
            "'.' is a folder; expected a file",
        ),
    ],
)
def test_arguments_of_another_type_are_refused(
    exported: Exported, backbone: Any, adapter: Any, path: Any, sentence: str
) -> None:
    given = {"{backbone}": exported.backbone, "{adapter}": exported.adapter}

    with pytest.raises(ExportError, match=re.escape(sentence)):
        export_onnx(given.get(backbone, backbone), given.get(adapter, adapter), path)


def test_the_hosts_settings_change_no_byte(exported: Exported, tmp_path: Path) -> None:
    with ExitStack() as settings:
        for enter in HOST_SETTINGS.values():
            settings.enter_context(enter())
        report = export_onnx(exported.backbone, exported.adapter, tmp_path / "birds.onnx")

    assert report.path.read_bytes() == exported.report.path.read_bytes()


def test_another_backbone_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BackboneMismatchError, match="Adapter 'birds' was trained on"):
        export_onnx(make_depthwise(), exported.adapter, tmp_path / "task.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_task_that_answers_otherwise_than_its_probe_is_refused(
    exported: Exported, tmp_path: Path
) -> None:
    probed = exported.adapter.with_probe(exported.backbone, dtype="float32")
    assert export_onnx(exported.backbone, probed, tmp_path / "task.onnx").max_abs_diff < 1e-4
    assert probed.probe is not None
    rows = [[value + index for index, value in enumerate(row)] for row in probed.probe.logits]
    other = replace(probed, config=replace(probed.config, probe=Probe.of(rows, dtype="float32")))
    with pytest.raises(SelfCheckError, match=r"answers its probe differently on .*, folded: it dr"):
        export_onnx(exported.backbone, other, tmp_path / "other.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["task.onnx"]


def test_an_adapter_that_answers_nan_is_refused_and_the_backbone_keeps_its_dtype(
    tmp_path: Path,
) -> None:
    backbone = Backbone(make_backbone().model.to(torch.bfloat16))
    model = make_trained(backbone, norm="frozen")
    with torch.no_grad():
        next(iter(model.gate_parameters().values())).fill_(3e38)
    adapter = Adapter.from_model(model, task="birds")

    with pytest.raises(ExportError, match="Adapter 'birds' answers with NaN or infinity on"):
        export_onnx(backbone, adapter, tmp_path / "task.onnx")

    assert list(tmp_path.iterdir()) == []
    assert {p.dtype for p in backbone.parameters()} == {torch.bfloat16}


def test_importing_it_loads_neither_onnx_nor_its_runtime() -> None:
    names = "{'onnx', 'onnxruntime', 'onnxscript'}"
    code = f"import sys, gatehub.export; print(sorted({names} & sys.modules.keys()))"
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout == "[]\n"
