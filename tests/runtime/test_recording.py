"""Networks whose program would answer otherwise are refused, each with its reason."""

from __future__ import annotations

import pytest
import torch

from gatehub.errors import ExecutionError
from gatehub.gates.merged import MergedBackbone
from gatehub.runtime.program import Program
from gatehub.runtime.recording import record
from tests.runtime.networks import REFUSED, SIDE, mixes_images, wire


def record_backbone(merged: MergedBackbone, *, dtype: torch.dtype = torch.float32) -> Program:
    return record(
        lambda labels: merged.model(labels, dtype=dtype),
        input_size=(3, SIDE, SIDE),
        device=merged.device,
        dtype=dtype,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_replayed_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ExecutionError, match=message):
        record_backbone(MergedBackbone(make()))


def test_images_are_held_apart_in_half_precision_too() -> None:
    with pytest.raises(ExecutionError, match="by what else is in its batch"):
        record_backbone(MergedBackbone(wire(mixes_images)), dtype=torch.bfloat16)
