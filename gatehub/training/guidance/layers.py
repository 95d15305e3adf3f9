"""Which layers of a network stand for what it computes, and what they gave in a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _MaxPoolNd,
)
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from gatehub.errors import GuidanceError

# Linear layers are what the projections of other attention modules, such as timm's, are made of.
_CLASSES: tuple[type[nn.Module], ...] = (
    _ConvNd,
    nn.Linear,
    _MaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)


def stands_for_features(module: nn.Module) -> bool:
    """Whether a module's output is compared: convolutions, linear, pooling, recurrent, attention.

    A module that holds such layers, as a block does, is not compared itself.
    """
    return isinstance(module, _CLASSES)


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of a layer in a pass.

    Args:
        name: of the module; "NAME#2" for the second call of the same one in a pass.
        kept: what was kept of its output, None where nothing was.
    """

    name: str
    kept: Tensor | None


class Watch:
    """The layers that the last pass of a network went through, in the order of their calls."""

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._calls: Counter[str] = Counter()

    def clear(self) -> None:
        """Forget the last pass."""
        self._layers = []
        self._calls.clear()

    def add(self, name: str, kept: Tensor | None) -> None:
        """Note a call."""
        self._calls[name] += 1
        calls = self._calls[name]
        self._layers.append(Layer(f"{name}#{calls}" if calls > 1 else name, kept))

    @property
    def calls(self) -> int:
        """How many layers were called in this pass."""
        return len(self._layers)

    def take(self) -> list[Layer]:
        """Return the layers of the last pass without the last one, which is the answer."""
        layers = self._layers[:-1]
        self.clear()
        return layers


@contextmanager
def watch_layers(
    network: nn.Module,
    keep: Callable[[Tensor, int], Tensor | None],
    *,
    selects: Callable[[nn.Module], bool] = stands_for_features,
) -> Iterator[Watch]:
    """Note what layers give while the with block lasts; each pass of the network begins anew.

    Args:
        network: nothing of it stays changed, however the block ends.
        keep: what is kept of an output, whose samples lie along the first dimension; it is also
            told how many layers were called before. It is called at once: what comes next in the
            network may write into an output.
        selects: which modules count.

    Raises:
        GuidanceError: fewer than two modules count; or, in a pass, one of them gives no tensor.
    """
    chosen = {name: module for name, module in network.named_modules() if selects(module)}
    if len(chosen) < 2:
        raise GuidanceError(
            f"{type(network).__name__} has {len(chosen)} of the layers whose features can be "
            "compared; expected 2 or more, since the last one gives the answer.",
            hint="Convolutions, linear, pooling, recurrent and attention layers count; `selects` "
            "takes others.",
        )
    watch = Watch()

    def look_at(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, given: Any, output: Any) -> None:
            watch.add(name, keep(_read(name, module, output), watch.calls))

        return look

    with ExitStack() as hooks:
        # It comes first: the network itself may be one of the layers.
        clearing = network.register_forward_pre_hook(lambda module, given: watch.clear())
        hooks.callback(clearing.remove)
        for name, module in chosen.items():
            hooks.callback(module.register_forward_hook(look_at(name)).remove)
        yield watch


def _read(name: str, module: nn.Module, output: Any) -> Tensor:
    """Return a layer's features with the samples first: of several outputs the first."""
    if isinstance(output, tuple) and not isinstance(output, PackedSequence):
        output = output[0]
    if isinstance(output, PackedSequence):
        return pad_packed_sequence(output, batch_first=True)[0]
    if not isinstance(output, Tensor):
        raise GuidanceError(
            f"Layer '{name}' ({type(module).__name__}) gave a value of type "
            f"{type(output).__name__}; expected a tensor."
        )
    # Recurrent and attention layers have time first unless they are told otherwise.
    time_first = getattr(module, "batch_first", True) is False and output.ndim > 2
    return output.transpose(0, 1) if time_first else output
