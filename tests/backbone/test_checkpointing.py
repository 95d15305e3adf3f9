from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gatehub.backbone.checkpointing import Pass, watch_passes
from gatehub.errors import GateError

pytestmark = pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad:UserWarning",
)


def make_net() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    watch_passes(net)
    return net


def run(net: nn.Sequential, values: Tensor) -> Tensor:
    return net[2](checkpoint(net[1], net[0](values), use_reentrant=True))


def test_the_next_layer_tells_whether_gradients_were_lost() -> None:
    net, values = make_net(), torch.ones(1, 2)
    with torch.no_grad():
        run(net, values)
    with pytest.raises(GateError, match=r"nothing that is given to it needs a gradient") as refusal:
        run(net, values)
    assert "use_reentrant=False" in str(refusal.value.hint)
    run(net, values.requires_grad_()).sum().backward()
    assert net[1].weight.grad is not None


def test_an_earlier_layer_begins_another_pass() -> None:
    net, values = make_net(), torch.ones(1, 2)
    checkpoint(net[2], values, use_reentrant=True)
    net[2](net[1](values)).sum().backward()
    assert net[1].weight.grad is not None


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_knows_nothing_of_passes(twin: Callable[[Pass], Pass]) -> None:
    within = Pass()
    within.lost = 3
    assert twin(within).lost is None
    assert within.lost == 3
