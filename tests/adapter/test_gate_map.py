"""The picture of the gates: what it measures, and that it can always be drawn."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from gatehub.adapter.gate_map import COLUMNS, draw_gates, measure_gates, measure_sites
from gatehub.gates.kinds import parse_kind
from gatehub.gates.layout import GateLayout, SiteGate
from tests.adapter.sample import LAYOUT, sample_tensors


def lay_out(kind: str, *sites: str, shape: tuple[int, int] = (3, 2)) -> GateLayout:
    gates = {site: SiteGate(kind=parse_kind(kind), shape=shape) for site in sites}
    return GateLayout(policy=kind, start=None, norm="frozen", sites=gates)


def open_picture(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "PNG"
    return picture


def test_each_kind_is_measured_by_its_matrix() -> None:
    full = {"conv.gate": torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, -2.0]])}
    # Rows of M - 1 are (0, 0), (1, 0) and (0, -3).
    expected = torch.tensor([9 / 2, 1 / 2, 0.0]).sqrt()
    assert torch.allclose(measure_gates(lay_out("full", "conv"), full)["conv"], expected)
    lowrank = {
        "conv.gate_a": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]),
        "conv.gate_b": torch.tensor([[1.0, 0.0], [0.0, -1.0]]),
    }
    assert torch.allclose(measure_gates(lay_out("lowrank:2", "conv"), lowrank)["conv"], expected)
    scale = {"conv.gate_a": torch.tensor([1.0, 2.0, 3.0]), "conv.gate_b": torch.ones(2)}
    assert measure_gates(lay_out("scale", "conv"), scale)["conv"].tolist() == [2.0, 1.0, 0.0]


def test_a_site_is_measured_as_a_whole_and_by_the_channel_that_moved_most() -> None:
    full = {"conv.gate": torch.tensor([[1.0, 1.0], [2.0, 1.0], [1.0, -2.0]])}
    found = measure_sites(lay_out("full", "conv"), full)["conv"]
    assert found.distance == pytest.approx((10 / 6) ** 0.5)
    assert found.largest == pytest.approx(4.5**0.5)


def test_the_picture_shows_where_the_gates_moved() -> None:
    """Of two sites the lower one moved: its row is bright, and that of the other is black."""
    layout = lay_out("full", "one", "two", shape=(COLUMNS, 4))
    gates = {"one.gate": torch.ones(COLUMNS, 4), "two.gate": torch.full((COLUMNS, 4), 1.5)}
    picture = open_picture(draw_gates(layout, gates, title="Gates of birds")).convert("L")
    assert picture.width == 960
    # A column of pixels through the middle of the heat map, under its colour bar.
    middle = [picture.getpixel((400, y)) for y in range(picture.height // 2, picture.height)]
    dark, bright = middle.index(0), middle.index(max(v for v in middle if v < 250))
    assert dark < bright


def test_the_same_gates_give_the_same_bytes() -> None:
    one = draw_gates(LAYOUT, sample_tensors(), title="Gates of fruit")
    assert draw_gates(LAYOUT, sample_tensors(), title="Gates of fruit") == one
    other = {**sample_tensors(), "conv1.gate": torch.zeros(2, 3)}
    assert draw_gates(LAYOUT, other, title="Gates of fruit") != one


@pytest.mark.parametrize("count", [1, 300])
def test_few_and_many_sites_that_have_not_moved(count: int) -> None:
    layout = lay_out("scale", *(f"stages.{i}.conv" for i in range(count)))
    gates = {name: torch.ones(shape) for name, shape in layout.gate_shapes().items()}
    data = draw_gates(layout, gates, title="Gates of nothing yet")
    assert open_picture(data).height <= 1_900
    assert len(data) < 120_000
