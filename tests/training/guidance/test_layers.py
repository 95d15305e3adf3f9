"""Which layers are watched, in which order, and that nothing of it stays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gatehub.errors import GuidanceError
from gatehub.training.guidance.layers import watch_layers
from tests.training.guidance.networks import (
    Recurrent,
    draw_images,
    hooks_left,
    make_connected,
    make_convolutional,
)


def keep(features: Tensor, before: int) -> Tensor:
    return features.detach().clone()


def test_layers_come_in_the_order_of_their_calls_without_the_answer() -> None:
    network, images = make_convolutional(), draw_images()
    with watch_layers(network, keep) as watch:
        network(images)
        layers = watch.take()

    assert [layer.name for layer in layers] == ["0", "2", "5"]
    assert hooks_left(network) == 0
    # Not what the in-place ReLU behind it has made of it.
    assert torch.equal(layers[0].kept, network[0](images))  # type: ignore[arg-type]


def test_recurrent_and_attention_layers_give_the_samples_first_and_each_call_counts() -> None:
    network = Recurrent()
    with watch_layers(network, keep) as watch:
        network(torch.randn(7, 4, 3))
        layers = watch.take()

    shapes = {layer.name: tuple(layer.kept.shape) for layer in layers if layer.kept is not None}
    assert shapes == {
        "rnn": (7, 4, 6),
        "attention": (7, 4, 6),
        "cell": (7, 4),
        "cell#2": (7, 4),
        "cell#3": (7, 4),
        "cell#4": (7, 4),
    }


def test_any_name_counts_its_calls() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("a#b", nn.Linear(3, 3))
            self.head = nn.Linear(3, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            layer = self.get_submodule("a#b")
            return self.head(layer(layer(inputs)))  # type: ignore[no-any-return]

    network = Twice()
    with watch_layers(network, keep) as watch:
        for _ in range(2):
            network(torch.randn(4, 3))
            assert [layer.name for layer in watch.take()] == ["a#b", "a#b#2"]


def test_packed_sequences_are_padded() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            lengths = torch.tensor([4, 2, 3])
            packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, True, False)
            return self.head(self.rnn(packed)[1][0])  # type: ignore[no-any-return]

    network = Packed()
    with watch_layers(network, keep) as watch:
        network(torch.randn(3, 4, 3))
        (layer,) = watch.take()
    assert layer.kept is not None
    assert layer.kept.shape == (3, 4, 6)


def test_layers_of_torchs_transformer_are_seen_in_evaluation_mode() -> None:
    """It has a fast path there that calls none of its layers."""
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Linear(3, 8), block, nn.Linear(8, 2)).eval()
    with torch.no_grad(), watch_layers(network, keep) as watch:
        network(torch.randn(3, 4, 3))
        names = [layer.name for layer in watch.take()]
    assert names == ["0", "1.self_attn", "1.linear1", "1.linear2"]


def test_each_pass_begins_anew() -> None:
    network = make_connected(3)
    with watch_layers(network, keep) as watch:
        network(draw_images())
        network(draw_images(5))
        layers = watch.take()
        assert [len(layer.kept) for layer in layers if layer.kept is not None] == [5, 5]
        assert watch.take() == []


def test_hooks_go_however_the_block_ends() -> None:
    network = make_convolutional()
    with pytest.raises(RuntimeError), watch_layers(network, keep):
        network(torch.zeros(2, 9))  # of a shape that it does not take
    assert hooks_left(network) == 0


def test_networks_that_have_nothing_to_compare_are_refused() -> None:
    with (
        pytest.raises(GuidanceError, match=r"Sequential has 1 of the layers .* expected 2 or more"),
        watch_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), keep),
    ):
        pass

    class Odd(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return {"answer": inputs}  # type: ignore[return-value]

    network = nn.Sequential(Odd(2, 2), nn.Linear(2, 2))
    with (
        pytest.raises(GuidanceError, match=r"Layer '0' \(Odd\) gave a value of type dict"),
        watch_layers(network, keep),
    ):
        network(torch.zeros(3, 2))
    assert hooks_left(network) == 0
