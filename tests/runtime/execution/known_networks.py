"""Kernels that oneDNN wants in other orders for other sizes of images."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.compiler.kernel_forms import KernelForms, find_forms
from gatehub.compiler.program import Program, read_value
from gatehub.runtime.execution import programs
from tests.tiny import make_backbone, make_trained


def make_wide_backbone() -> Backbone:
    return make_backbone(
        "resnet18",
        layers=(1, 1, 1, 1),
        channels=(64, 64, 96, 128),
        num_classes=10,
        pretrained_cfg_overlay={"input_size": (3, 64, 64), "crop_pct": 1.0},
    )


def make_wide_task(backbone: Backbone, task: str) -> Adapter:
    seed = sum(map(ord, task))
    return Adapter.from_model(make_trained(backbone, seed=seed), task=task)


def want_an_order_for_each_size(patch: pytest.MonkeyPatch, *, home: int, more: int = 0) -> None:
    """Let kernels be wanted in another order for each image size, on any processor.

    Args:
        patch: undoes it.
        home: the side of the images whose orders stay as they are.
        more: bytes by which a kernel in any other order is larger.
    """

    def find(program: Program, batch: int, **choices: object) -> KernelForms:
        found = find_forms(program, batch, **choices)  # type: ignore[arg-type]
        images = read_value(program.inputs["images"])
        assert images is not None
        side = images.shapes[0][2]
        if side == home:
            return found
        layouts = tuple(
            (name, replace(at, order=b"%d %b" % (side, at.order), bytes=at.bytes + more))
            for name, at in found.layouts
        )
        # Where nothing is packed, the forms differ all the same.
        tag = () if layouts else ((f"of {side}", None),)
        return KernelForms(layouts=(*layouts, *tag), matrices=found.matrices)  # type: ignore[arg-type]

    patch.setattr(programs, "find_forms", find)
