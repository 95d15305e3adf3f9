from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm.layers import BatchNormAct2d, DropPath, convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gatehub.backbone.blueprint import Blueprint
from tests.tiny import make_backbone


def double(module: nn.Module, given: object, answer: Tensor) -> Tensor:
    return answer * 2


def make_net() -> nn.Module:
    layers = {
        "conv": nn.Conv2d(3, 4, 3, padding=1),
        "norm": nn.BatchNorm2d(4),
        "act": nn.ReLU(),
        "both": BatchNormAct2d(4),
        "pool": nn.AvgPool2d(2),
        "group": nn.GroupNorm(2, 4),
        "drop": nn.Dropout(0.1),
        "path": DropPath(0.1),
    }
    net = nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    net.head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU())
    net.function = torch.relu
    net.scales = (1.0, float("nan"))
    return net.eval()


def turn_round(net: nn.Module) -> None:
    layer = net._modules.pop("conv")
    net._modules["conv"] = layer


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "eps": (lambda n: setattr(n.norm, "eps", 0.1), r"'norm' has eps 0.1 instead of 1e-05"),
    "eps of a group": (lambda n: setattr(n.group, "eps", 1e-3), r"'group' has eps 0.001"),
    "groups": (lambda n: setattr(n.group, "num_groups", 4), r"num_groups 4 instead of 2"),
    "stride": (lambda n: setattr(n.conv, "stride", (2, 2)), r"stride \(2, 2\) instead of \(1, 1\)"),
    "padding": (lambda n: setattr(n.conv, "padding", (0, 0)), r"padding \(0, 0\)"),
    "mode": (lambda n: setattr(n.conv, "padding_mode", "circular"), r"padding_mode 'circular'"),
    "dilation": (lambda n: setattr(n.conv, "dilation", (2, 2)), r"dilation \(2, 2\)"),
    "window": (lambda n: setattr(n.pool, "kernel_size", 3), r"kernel_size 3 instead of 2"),
    "statistics": (lambda n: setattr(n.norm, "track_running_stats", False), "track_running"),
    "activation": (lambda n: setattr(n, "act", nn.GELU()), r"'act' is a GELU instead of a ReLU"),
    "its own": (lambda n: setattr(n.both, "act", nn.SiLU()), r"'both.act' is a SiLU"),
    "function": (lambda n: setattr(n, "function", torch.sigmoid), "has function .*sigmoid"),
    "lambda": (lambda n: setattr(n, "function", lambda x: x), "has function .*<lambda>"),
    "value": (lambda n: setattr(n, "scales", (1.0, 2.0)), r"scales \(1.0, 2.0\) .* \(1.0, nan\)"),
    "forward": (lambda n: setattr(n.conv, "forward", lambda x: x), "'conv' has forward"),
    "part": (
        lambda n: setattr(n.conv, "_conv_forward", lambda *given: given[0]),
        "'conv' has _conv_forward",
    ),
    "another's": (
        lambda n: setattr(n.norm, "forward", partial(checkpoint, n.both.forward)),
        "'norm' has forward",
    ),
    "hook": (lambda n: n.conv.register_forward_hook(double), "'conv' has other hooks"),
    "its hook": (lambda n: n.register_forward_hook(double), "it has other hooks"),
    "pre-hook": (lambda n: n.act.register_forward_pre_hook(print), "'act' has other hooks"),
    "backward": (lambda n: n.act.register_full_backward_hook(print), "'act' has other hooks"),
    "new": (lambda n: n.act.add_module("more", nn.ReLU()), "layer 'act.more' is new"),
    "gone": (lambda n: delattr(n, "pool"), "layer 'pool' is gone"),
    "order": (turn_round, "in another order"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_told(change: str) -> None:
    net = make_net()
    blueprint = Blueprint(net, exclude=["head"])
    deed, words = CHANGES[change]
    deed(net)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(blueprint.find_change(net))
    assert blueprint.find_change(make_net()) is None


def note(net: nn.Module) -> None:
    net.conv.note = "seen"
    net.conv.seen = [1, 2]


NEUTRAL: dict[str, Callable[[nn.Module], object]] = {
    "nothing": lambda n: None,
    "mode": lambda n: n.train(),
    "cast": lambda n: n.half().to(memory_format=torch.channels_last),
    "gradients": lambda n: n.requires_grad_(False),
    "dropout": lambda n: (setattr(n.drop, "p", 0.5), setattr(n.path, "drop_prob", 0.5)),
    "momentum": lambda n: setattr(n.norm, "momentum", 0.5),
    "in place": lambda n: setattr(n.act, "inplace", True),
    "head": lambda n: setattr(n, "head", nn.Conv2d(4, 9, 1)),
    "head's hook": lambda n: n.head[0].register_forward_hook(double),
    "hook and back": lambda n: n.conv.register_forward_hook(double).remove(),
    "again": lambda n: setattr(n.act, "forward", partial(checkpoint, n.act.forward)),
    "note": note,
    "compile": lambda n: n.compile(),
}


@pytest.mark.parametrize("change", NEUTRAL)
def test_what_changes_no_answer_is_no_change(change: str) -> None:
    net = make_net()
    blueprint = Blueprint(net, exclude=["head"])
    NEUTRAL[change](net)
    assert blueprint.find_change(net) is None
    assert pickle.loads(pickle.dumps(blueprint)).find_change(copy.deepcopy(make_net())) is None


def test_norms_in_step_with_other_processes_are_the_same() -> None:
    net = make_net()
    blueprint = Blueprint(net, exclude=["head"])
    assert blueprint.find_change(convert_sync_batchnorm(net)) is None


def test_functions_may_be_left_out() -> None:
    net = make_net()
    blueprint = Blueprint(net, exclude=["head"], functions=False)
    net.conv.register_forward_hook(double)
    net.conv.forward = partial(net.conv._conv_forward)
    assert blueprint.find_change(net) is None
    net.norm.eps = 0.1
    assert blueprint.find_change(net) == "layer 'norm' has eps 0.1 instead of 1e-05"


def test_a_pass_changes_nothing() -> None:
    backbone = make_backbone()
    blueprint = Blueprint(backbone.model, exclude=backbone.heads)
    backbone(torch.zeros(1, 3, 32, 32))
    backbone.model.set_grad_checkpointing()
    backbone.model.reset_classifier(3)
    assert blueprint.find_change(backbone.model) is None
