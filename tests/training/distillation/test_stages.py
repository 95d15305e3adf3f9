"""From least squares to statistics to training: what each of them does to a gated model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gatehub.backbone import Backbone
from gatehub.gates.attach import attach_gates
from gatehub.gates.fold import fold_weights, install_tensors
from gatehub.problem import ONE_LABEL, Problem
from gatehub.training.distillation.likeness import Answers, compare
from gatehub.training.distillation.moments import match_moments
from gatehub.training.distillation.projection import project
from gatehub.training.methods.trained_network import read_network
from tests.tiny import make_backbone, make_trained, random_images
from tests.training.distillation.networks import LABELS, fine_tune, make_described


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return make_described()


def watch(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each batch norm answers to images: mean and spread of each channel."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):  # type: ignore[no-untyped-def]
        def look(_: nn.Module, __: object, out: Tensor) -> None:
            seen[name] = torch.stack([out.mean((0, 2, 3)), out.std((0, 2, 3))])

        return look

    norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    handles = [module.register_forward_hook(keep(name)) for name, module in norms.items()]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", ["resnet18", "test_nfnet", "test_convnext"])
@pytest.mark.parametrize("gates", ["full", "scale"])
def test_a_network_that_gates_can_be_is_found_again(name: str, gates: str) -> None:
    """Statistics of its own go into weights and biases, where norm is "affine"."""
    backbone = make_backbone(name) if name == "resnet18" else make_backbone(name, num_classes=10)
    trained = make_trained(backbone, gates=gates, norm="stats")
    network = trained.net.eval()
    model = attach_gates(backbone, labels=trained.labels, gates=gates)

    if name == "test_nfnet":  # its layers form their kernels from weights of their own
        network = make_backbone(name, num_classes=10).model
        with torch.no_grad():
            for part, parameter in network.named_parameters():
                if part.endswith("gain"):
                    parameter.mul_(1.3)
        model = attach_gates(backbone, labels=[*map(str, range(10))], gates=gates)
        fit = project(model, backbone, network)
        assert fit.explained == 1.0
    else:
        plain = make_backbone(name) if name == "resnet18" else make_backbone(name, num_classes=10)
        network = plain.model
        network.reset_classifier(len(trained.labels))  # type: ignore[operator]
        state = _Task(trained)
        install_tensors(network, fold_weights(backbone, network, state))  # type: ignore[arg-type]
        fit = project(model, backbone, network.eval())
        assert fit.explained == pytest.approx(1, abs=1e-4)
    images = random_images(4)
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images), rtol=2e-3, atol=2e-3)
    assert fit.left == ()


class _Task:
    """A gated model as folding takes it."""

    def __init__(self, model):  # type: ignore[no-untyped-def]
        self.task, self.labels, self.backbone = "t", model.labels, model.backbone
        self.layout, self.preprocessing = model.layout, model.preprocessing
        self.tensors = model.task_tensors()


def test_statistics_are_those_of_the_network_at_every_layer(
    backbone: Backbone, tmp_path: Path
) -> None:
    network = read_network(fine_tune(backbone, tmp_path / "net", norms=True)).build_on(backbone)
    model = attach_gates(backbone, labels=LABELS)
    project(model, backbone, network)
    images = random_images(16)
    before = watch(model.net, images)

    assert match_moments(model, network, [images]) == len(before)

    wanted, after = watch(network, images), watch(model.net, images)
    for name, moments in wanted.items():
        torch.testing.assert_close(after[name], moments, rtol=1e-2, atol=1e-2)
    assert any((before[name] - moments).abs().max() > 0.1 for name, moments in wanted.items())


def test_what_no_value_stands_for_is_named(backbone: Backbone, tmp_path: Path) -> None:
    network = read_network(fine_tune(backbone, tmp_path / "net")).build_on(backbone)
    model = attach_gates(backbone, labels=LABELS, start="layer2", norm="frozen")

    left = project(model, backbone, network).left

    assert {"conv1.weight", "bn1.weight", "layer4.0.bn1.bias"} <= set(left)
    assert not any(name.startswith(("fc.", "layer3.0.conv")) for name in left)


def test_likeness_by_hand() -> None:
    own = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    theirs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    targets = torch.tensor([0, 1, 1])
    one = compare(
        Answers(logits=own, targets=targets), Answers(logits=theirs, targets=targets), ONE_LABEL
    )
    p = theirs.softmax(-1)
    expected = (p * (p.log() - own.softmax(-1).log())).sum(-1).mean().item()
    assert (one.agreement, one.accuracy) == pytest.approx((2 / 3, 2 / 3))
    assert one.logit_difference == pytest.approx(0.5)
    assert one.divergence == pytest.approx(expected, rel=1e-5)

    several = Problem(thresholds=(0.5, 0.9))
    own, theirs = own - 0.1, theirs - 0.1
    blank = Answers(logits=own, targets=None)
    found = compare(blank, Answers(logits=theirs, targets=None), several)
    assert found.accuracy is None
    assert found.agreement == pytest.approx(2 / 3)  # the first label of the second image differs
    p, q = theirs.sigmoid(), own.sigmoid()
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert found.divergence == pytest.approx(kl.sum(-1).mean().item(), rel=1e-5)
