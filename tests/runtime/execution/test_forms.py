"""Kernels lie in the order that the images at hand want, on processors of two kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from gatehub.adapter import Adapter
from gatehub.adapter.probe import PROBE_SEED, draw_images
from gatehub.backbone import Backbone
from gatehub.compiler.kernels import Kernel, can_pack
from gatehub.errors import SelfCheckError
from gatehub.gates.fold import fold
from gatehub.gates.merged_backbone import MergedBackbone
from gatehub.runtime.engine import Engine
from gatehub.runtime.execution.execution import Execution
from tests.parity import Tolerance, assert_parity
from tests.runtime.execution.known_networks import (
    make_wide_backbone,
    make_wide_task,
    want_an_order_for_each_size,
)
from tests.source_tree import ROOT
from tests.tiny import make_trained, random_images

needs_packing = pytest.mark.skipif(
    not can_pack(torch.float32), reason="this torch has no packed kernels on this processor"
)


@needs_packing
@pytest.mark.parametrize(
    ("instructions", "threads"),
    [
        ("AVX2", 1),
        ("DEFAULT", 1),
        pytest.param("AVX2", 2, marks=pytest.mark.slow),
        pytest.param("DEFAULT", 2, marks=pytest.mark.slow),
    ],
)
def test_no_kernel_is_reordered_after_the_first_call_of_a_size(
    instructions: str, threads: int
) -> None:
    program = [sys.executable, "-m", "tests.runtime.execution.reordering_program"]
    done = subprocess.run(
        [*program, "64,160,32,96,48,80,64,160,32,96,48,80", str(threads)],
        cwd=ROOT,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        check=True,
        capture_output=True,
        text=True,
    )
    counted = json.loads(done.stdout)
    assert counted["first"] > 0  # they are seen
    assert len(counted["again"]) == 48
    assert counted["again"] == [0] * 48


@needs_packing
def test_folded_bytes_count_what_kernels_are_padded_with() -> None:
    backbone = make_wide_backbone()
    adapter = make_wide_task(backbone, "birds")
    merged = MergedBackbone(backbone)
    execution, plan = Execution(merged, torch.float32), merged.plan_task(adapter)
    for batch, side in ((1, 64), (3, 64), (1, 224), (2, 33)):
        forms = execution.forms(batch, (3, side, side))
        folded = execution.fold(adapter, plan, forms)
        own = [folded.weights[name] for name in folded.own]
        assert execution.count_bytes(plan, forms) == folded.bytes == sum(w.nbytes for w in own)
        packed = [weight for weight in own if isinstance(weight, Kernel)]
        assert packed
        assert all(w.nbytes == torch.ops.mkldnn._nbytes(w._packed) for w in packed)
    assert execution.forms(1) is execution.forms(1, (3, 64, 64))


def test_every_form_of_a_task_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each size here wants an order of its own, and there is room for one."""
    backbone = make_wide_backbone()
    adapters = [make_wide_task(backbone, task) for task in ("one", "two")]
    want_an_order_for_each_size(monkeypatch, home=64)
    one = Engine(backbone, dtype="float32")
    one.load("one", adapters[0])
    engine = Engine(backbone, dtype="float32", folded_bytes=int(one.memory()[0].bytes * 1.5))
    expected = {}
    for adapter in adapters:
        engine.load(adapter.task, adapter)
        for side in (32, 48):
            images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
            expected[adapter.task, side] = images, fold(backbone, adapter)(images)
    for _ in range(2):
        for (task, _), (images, answer) in expected.items():
            found = engine.predict(task, images)
            assert_parity(found, answer, Tolerance(name="another order", relative=1e-4))
            tier = engine.memory()[0]
            assert tier.bytes <= (tier.budget_bytes or 0)
            assert tier.entries == 1
    engine.pin("one")
    engine.unpin("one")
    assert engine.evict("one")
    assert engine.memory()[0].bytes == 0


@pytest.mark.parametrize("value", [3e38, 1e30, 1e20, 1e5])
@pytest.mark.parametrize("ask", ["predict", "predict_mixed", "predict_all"])
def test_numbers_beyond_their_range_are_not_answered_with_numbers(
    tiny_backbone: Backbone, tiny_adapter: Adapter, value: float, ask: str
) -> None:
    images = random_images(2)
    images[1, 0, 3, 3] = value
    images[1, 1, 5, 5] = -value
    expected = fold(tiny_backbone, tiny_adapter)(images)
    engine = Engine(tiny_backbone, dtype="float32")
    for task in ("a", "b"):
        engine.load(task, tiny_adapter)
    if ask == "predict":
        found = engine.predict("a", images)
    elif ask == "predict_mixed":
        found = torch.stack(engine.predict_mixed(["a", "b"], images))
    else:
        found = engine.predict_all(images, ["a", "b"])["b"]
    assert torch.equal(found.isfinite(), expected.isfinite())
    assert_parity(found[0], expected[0], Tolerance(name="another order", relative=1e-4))


@pytest.mark.parametrize("gain", [1e20, 1e9])
def test_a_task_whose_values_leave_their_range_is_refused(
    tiny_backbone: Backbone, gain: float
) -> None:
    """Relu makes a number of the NaN in between, and every logit would be finite."""
    model = make_trained(tiny_backbone, gates="full")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "head" not in name and value.ndim == 2:
                value.mul_(gain)
    adapter = Adapter.from_model(model, task="wild")
    engine = Engine(tiny_backbone, dtype="float32")
    with pytest.raises(SelfCheckError, match=r"NaN or infinity|leave the range of numbers"):
        engine.load("wild", adapter)
    assert engine.tasks() == ()


@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_a_task_that_only_flat_pictures_drive_out_of_range_is_refused(
    tiny_backbone: Backbone, shade: float
) -> None:
    """Its gates let nothing of the probe's noise through to what overflows."""
    preprocessing = tiny_backbone.preprocessing
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    flat = ((shade - mean) / std).expand(1, *preprocessing.input_size)
    probe = torch.from_numpy(draw_images(PROBE_SEED, preprocessing))
    model = make_trained(tiny_backbone, gates="scale")
    seen: list[torch.Tensor] = []
    first, *norms = (m for m in model.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
    hook = first.register_forward_hook(lambda _, given, __: seen.append(given[0].amax((0, 2, 3))))
    with torch.no_grad():
        model(probe), model(flat)
        hook.remove()
        noise, picture = seen
        assert bool((picture > noise).any())
        threshold = torch.where(picture > noise, (picture + noise) / 2, noise + 1e3)
        spread = (first.running_var + first.eps).sqrt()
        first.weight.fill_(1)
        first.bias.copy_((first.running_mean - threshold) / spread)
        for norm in norms:
            norm.weight.fill_(1e10)
            norm.bias.copy_(norm.running_mean / (norm.running_var + norm.eps).sqrt() * 1e10 - 1e6)
    adapter = Adapter.from_model(model, task="wild").with_probe(tiny_backbone)
    assert bool(fold(tiny_backbone, adapter)(probe).isfinite().all())
    engine = Engine(tiny_backbone, dtype="float32")
    with pytest.raises(SelfCheckError, match=r"NaN or infinity|leave the range of numbers"):
        engine.load("wild", adapter)
