"""What is in a translated file, for each opset that can be asked for."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from gatehub.export._translation import MAX_OPSET, MIN_OPSET, translate
from tests.parity import Tolerance, assert_parity

ONNX_RUNTIME = Tolerance(name="ONNX Runtime", relative=1e-5)

# Of the first ONNX release with the opset: github.com/onnx/onnx, docs/Versioning.md.
IR_VERSIONS = {18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}


def test_every_opset_is_looked_at() -> None:
    assert list(IR_VERSIONS) == list(range(MIN_OPSET, MAX_OPSET + 1))


@pytest.mark.parametrize("opset", IR_VERSIONS)
def test_the_file_format_is_the_oldest_that_has_the_opset(opset: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Hardswish(), nn.Flatten())
        images = torch.randn(5, 3, 6, 5)
    model.eval()

    proto = translate(model, (3, 6, 5), opset=opset, name="it")

    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": opset}
    assert proto.ir_version == IR_VERSIONS[opset]
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        assert_parity(torch.from_numpy(found), model(images), ONNX_RUNTIME)
