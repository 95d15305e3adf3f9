"""Batch norm is one operator with one output, whatever the exporter makes of it."""

from __future__ import annotations

import onnxruntime
import pytest
import torch
from torch import nn

from gatehub.export._translation import translate
from tests.parity import Tolerance, assert_parity
from tests.tiny import settle_norms

ONNX_RUNTIME = Tolerance(name="ONNX Runtime", relative=1e-5)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_that_no_convolution_takes_in(affine: bool) -> None:
    norm = nn.BatchNorm2d(4, affine=affine)
    model = nn.Sequential(norm, nn.ReLU(), nn.Flatten()).eval()
    settle_norms(model)

    proto = translate(model, (4, 3, 2), opset=18, name="it")

    (written,) = (node for node in proto.graph.node if node.op_type == "BatchNormalization")
    assert len(written.output) == 1
    images = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["logits"], {"images": images.numpy()})
    with torch.no_grad():
        assert_parity(torch.from_numpy(found), model(images), ONNX_RUNTIME)
