"""One network of each family of timm under gates; benchmarks/coverage.py sweeps all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from benchmarks.coverage import main
from benchmarks.coverage_check import TOLERANCE, SizeLimits, check_name
from benchmarks.coverage_draws import draw_vectors, find_images
from benchmarks.coverage_table import read_results, render_table
from gatehub.backbone.classifier import replace_classifier
from gatehub.compiler.dynamic_shapes import unify_shapes
from gatehub.compiler.forward import record_pass
from gatehub.compiler.kernel_forms import find_forms
from gatehub.compiler.lowering import compile_graph
from gatehub.compiler.program import RECORDED_BATCHES, RECORDED_LABELS
from gatehub.compiler.tracing import named_tensors
from gatehub.compiler.verification import verify
from gatehub.gates.fold import fold
from gatehub.gates.kernel_memory import lay_out
from tests.parity import Tolerance, assert_parity
from tests.source_tree import ROOT

# The smallest name of each family in which convolutions hold half of the parameters.
FAMILIES = {
    "byobnet": "mobilevitv2_050",
    "convmixer": "convmixer_768_32",
    "convnext": "convnext_zepto_rms",
    "cpubone": "cpubone_s0",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "mobilenetv2_075",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b1",
    "efficientvit_msra": "efficientvit_m0",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "ghostnet": "ghostnetv3_050",
    "hgnet": "hgnetv2_b0",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_conv_128s",
    "lowformer": "lowformer_b0",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mobilenetv3": "mobilenetv3_small_100",
    "mobilenetv5": "mobilenetv5_base",
    "nasnet": "nasnetalarge",
    "nextvit": "nextvit_small",
    "nfnet": "nf_regnet_b0",
    "pnasnet": "pnasnet5large",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_080",
    "repvit": "repvit_m1",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "shvit": "shvit_s1",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "tresnet": "tresnet_m",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
}
# In these, some learned kernels convolve over other than two dimensions.
PARTLY_GATED = {"efficientvim": 0.8, "lowformer": 0.8}


# The smallest of these take ten seconds and more.
LARGE = frozenset(
    {
        *("convmixer", "inception_resnet_v2", "inception_v3", "inception_v4", "mobilenetv5"),
        *("nasnet", "pnasnet", "selecsls", "vgg"),
    }
)
EVERY_FAMILY = [
    pytest.param(family, marks=pytest.mark.slow if family in LARGE else ()) for family in FAMILIES
]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_one_network_of_each_family_is_gated_exactly(family: str) -> None:
    name = FAMILIES[family]
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    result = check_name(name, limits=SizeLimits())
    print(result)
    assert result["status"] == "passed", result["reason"]
    assert result["family"] == family
    assert result["conv_share"] >= 0.5
    assert result["gated_share"] == 1.0 or result["gated_share"] > PARTLY_GATED[family]
    assert result["fold_error"] <= TOLERANCE
    assert result["shares"]["auto"] <= 0.15


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_recorded_program_of_each_family_gives_the_modules_numbers(family: str) -> None:
    name = FAMILIES[family]
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2).eval().requires_grad_(False)
    draw_vectors(model)
    images = find_images(model, torch.float32)[:3].contiguous(memory_format=torch.channels_last)
    passes = []
    for batch, labels in zip(RECORDED_BATCHES, RECORDED_LABELS, strict=True):
        replace_classifier(model, labels)
        passes.append(record_pass(model, images[:batch].clone(), labels=labels))
    program = verify(unify_shapes(*passes))
    run, weights = compile_graph(program.graph), dict(named_tensors(model))
    forms = find_forms(program, len(images), device=images.device, dtype=images.dtype)
    packed = weights | {name: forms.form(lay_out(weights[name]), name) for name in program.kernels}
    with torch.inference_mode():
        expected = model(images)
        found = run(images, weights, RECORDED_LABELS[1])
        found_packed = run(images, packed, RECORDED_LABELS[1])
    assert torch.equal(found, expected)
    assert not torch.equal(expected[0], expected[1])
    assert_parity(found_packed, expected, Tolerance(name="another order of sums", relative=1e-4))


def test_the_committed_table_has_every_family_and_passes_98_percent() -> None:
    text = (ROOT / "benchmarks" / "coverage.md").read_text()
    convolutional = text.partition("## Where convolutions")[2].partition("## The rest")[0]
    rows = [line.split("|") for line in convolutional.splitlines() if line.startswith("|")]
    names = {cells[1].strip(): cells for cells in rows[2:]}
    assert names.keys() == {*FAMILIES, "**all**"}
    total = names["**all**"]
    assert int(total[3]) >= 0.98 * int(total[2])
    assert total[6].strip() == ""  # failed


def test_an_error_fails_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fold_wrongly(*arguments: object, **choices: object) -> object:
        model = fold(*arguments, **choices)
        model.layer4[0].conv1.weight.mul_(1.01)
        return model

    monkeypatch.setattr("benchmarks.coverage_check.fold", fold_wrongly)
    result = check_name("test_resnet", limits=SizeLimits())
    assert (result["status"], result["reason"]) == ("failed", "answers that differ")


def test_a_norm_beside_the_classifier_counts_among_what_is_trained() -> None:
    """Its name was once the same as that of a norm within the classifier."""
    result = check_name("convformer_s18", limits=SizeLimits())
    print(result)
    assert result["status"] == "passed", result["reason"]


def test_what_is_refused_or_too_large_says_why() -> None:
    refused = check_name("efficientnet_cc_b0_4e", limits=SizeLimits())
    assert refused["status"] == "refused"
    assert "CondConv2d" in refused["reason"]
    large = check_name("test_resnet", limits=SizeLimits(convolutional=1000))
    assert large["status"] == "too large"
    assert large["shares"]["auto"] > 0


def test_a_sweep_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, table = tmp_path / "results.jsonl", tmp_path / "table.md"
    options = ["--results", str(results), "--table", str(table)]
    assert main(["--name", "test_resnet", *options]) == 0
    assert main(["--name", "test_resnet", "--name", "efficientnet_cc_b0_4e", *options]) == 0
    assert [result["name"] for result in read_results(results)] == [
        "test_resnet",
        "efficientnet_cc_b0_4e",
    ]
    assert capsys.readouterr().err.count("test_resnet") == 1
    assert table.read_text() == render_table(read_results(results), SizeLimits())
    assert "refused: efficientnet_cc_b0_4e" in table.read_text()
