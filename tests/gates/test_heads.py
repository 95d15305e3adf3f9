"""A task's tensors have names of their own: no head's is another tensor's."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.metaformer import (
    Attention,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    SepConv,
)
from torch import Tensor, nn

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import SiteError
from gatehub.export import export_onnx
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import fold
from gatehub.gates.heads import name_head
from gatehub.runtime.engine import Engine
from tests.parity import Tolerance, assert_parity
from tests.tiny import LABELS, random_images, settle_norms

PARTS = ("head", "fc", "norm", "weight", "gate")
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map(".".join)
NORMS = {SepConv: LayerNorm2dNoBias, Attention: LayerNormNoBias}
SERVED = Tolerance(name="another order of sums", relative=1e-4)


class NormBeside(nn.Module):
    """Norms within the classifier and beside it, under the names that the classifier's would get.

    Args:
        beside: names of the norms that are the backbone's.
    """

    def __init__(self, *beside: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Module()
        for name in beside:
            parent = self.head
            for level in name.split(".")[:-1]:
                parent.add_module(level, getattr(parent, level, nn.Module()))
                parent = getattr(parent, level)
            parent.add_module(name.rpartition(".")[2], nn.LayerNorm(8))
        self.beside = beside
        self.reset_classifier(4)

    def reset_classifier(self, classes: int) -> None:
        self.head.fc = nn.Sequential()
        self.head.fc.norm = nn.LayerNorm(8)
        self.head.fc.fc = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.conv(images).mean((2, 3))
        for name in self.beside:
            values = self.head.get_submodule(name)(values)
        return self.head.fc(values)


def make_metaformer(last: type[nn.Module] = SepConv) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MetaFormer(
            depths=(1, 1),
            dims=(8, 32),
            token_mixers=[SepConv, last],
            norm_layers=[LayerNorm2dNoBias, NORMS[last]],
            num_classes=4,
            use_mlp_head=True,
        )
        settle_norms(model)
    model.pretrained_cfg = {"input_size": (3, 64, 64)}
    return Backbone(model)


BACKBONES = {
    "convformer": lambda: make_metaformer(),
    "caformer": lambda: make_metaformer(Attention),
    "one": lambda: Backbone(NormBeside("norm")),
    "both": lambda: Backbone(NormBeside("norm", "head.fc.norm")),
    "all": lambda: Backbone(NormBeside("norm", "head.fc.norm", "head.head.fc.norm")),
}


def train(backbone: Backbone, norm: str) -> GatedModel:
    """A task whose every parameter has moved, told by what learns and not by name."""
    torch.manual_seed(1)
    model = attach_gates(backbone, labels=LABELS, norm=norm)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
@pytest.mark.parametrize("norm", ["frozen", "affine", "stats"])
@pytest.mark.parametrize("name", BACKBONES)
def test_a_norm_beside_the_classifier_and_one_within_are_both_the_tasks(
    name: str, norm: str, tmp_path: Path
) -> None:
    backbone = BACKBONES[name]()
    model = train(backbone, norm)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(model.task_tensors()) == len(learned)
    images = random_images(3, 64)
    with torch.no_grad():
        expected = model(images)
    adapter = Adapter.from_model(model, task="birds")
    loaded = Adapter.load(adapter.save(tmp_path / "birds", dtype="float32"))
    engine = Engine(backbone, dtype="float32")
    engine.load("birds", tmp_path / "birds")
    with torch.no_grad():
        for found in (adapter, loaded):
            assert torch.equal(fold(backbone, found)(images), expected)
    assert_parity(engine.predict("birds", images), expected, SERVED)


@pytest.mark.filterwarnings("ignore::gatehub.errors.UngatedLayerWarning")
def test_an_exported_file_has_the_norm_beside_the_classifier(tmp_path: Path) -> None:
    backbone = make_metaformer()
    model = train(backbone, "affine")
    export_onnx(backbone, Adapter.from_model(model, task="birds"), tmp_path / "birds.onnx")
    images = random_images(2, 64)
    session = onnxruntime.InferenceSession(tmp_path / "birds.onnx")
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        assert_parity(torch.from_numpy(found), model(images), SERVED)


def test_a_name_is_longer_only_where_it_would_be_anothers() -> None:
    backbone = BACKBONES["one"]()
    assert "head.norm.weight" in train(backbone, "frozen").task_tensors()
    names = train(backbone, "affine").task_tensors().keys()
    assert {name for name in names if name.startswith("head.")} == {
        *("head.norm.weight", "head.norm.bias", "head.head.fc.norm.weight"),
        *("head.head.fc.norm.bias", "head.head.fc.fc.weight", "head.head.fc.fc.bias"),
    }


def test_an_adapter_that_has_lost_a_norm_is_refused() -> None:
    """As they were written when both norms had one name."""
    backbone = BACKBONES["one"]()
    adapter = Adapter.from_model(train(backbone, "affine"), task="birds")
    old = {name.replace("head.head.fc", "head"): t for name, t in adapter.tensors.items()}
    broken = Adapter(config=adapter.config, tensors=old)
    with pytest.raises(SiteError, match=r"lacks 'head.head.fc.norm.weight'.*[Tt]rain"):
        fold(backbone, broken)


@given(
    heads=st.lists(NAMES, min_size=1, max_size=3, unique=True),
    tails=st.lists(NAMES, min_size=1, max_size=4, unique=True),
    taken=st.sets(NAMES, max_size=12),
)
def test_no_two_names_are_alike(heads: list[str], tails: list[str], taken: set[str]) -> None:
    places = {f"{head}.{tail}" for head in heads for tail in tails}
    named = name_head(sorted(places), heads, taken=taken)
    assert sorted(named.values()) == sorted(places)
    assert named.keys().isdisjoint(taken)
    assert all(name.startswith("head.") for name in named)
