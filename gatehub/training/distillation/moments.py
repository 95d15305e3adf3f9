"""Batch statistics measured again, so that each normalised channel has its old mean and spread.

What a layer with running statistics gets from gated kernels has other statistics than what it got
from the fine-tuned ones. Where those were the network's own, this is what measuring them again
gives; where they were not (fine-tuning that keeps the backbone's), it is what stands in for that.
Setting the mean and spread of each channel by those of other networks: REPAIR, arXiv 2211.08403.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gatehub.gates.attach import GatedModel
from gatehub.training.distillation.projection import batch_norms, express, line_of

# With few images, or channels that are all but dead, a ratio of spreads says little.
_MOST = 8.0
_EPS = 1e-5

Moments = tuple[Tensor, Tensor]  # mean and variance of each channel, (C,) float64
Line = tuple[Tensor, Tensor]  # slope and offset, likewise


@torch.no_grad()
def match_moments(model: GatedModel, network: nn.Module, batches: Iterable[Tensor]) -> int:
    """Let each channel behind a batch norm have the network's mean and spread, in place.

    Layer by layer within a pass, since what a layer gets depends on those before it; over several
    batches the lines are averaged.

    Args:
        model: gated; its weights and biases of batch norms are set.
        network: what it is to be like, of the same architecture.
        batches: images (B, 3, H, W), normalised, in no order of classes.

    Returns:
        How many layers were set; 0 where the network has no running statistics, or the task no
        values for them.
    """
    names = batch_norms(model, network)
    if not names:
        return 0
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    lines: dict[str, list[Line]] = {name: [] for name in names}
    for images in batches:
        _match_batch(model, network, images.to(device), lines)
    for name, found in lines.items():
        if found:
            express(model, name, *(torch.stack(part).mean(0) for part in zip(*found, strict=True)))
    model.train(was_training)
    return sum(map(bool, lines.values()))


def _match_batch(
    model: GatedModel, network: nn.Module, images: Tensor, lines: Mapping[str, list[Line]]
) -> None:
    """Set each layer as a batch asks for, and note how it was set."""
    theirs: dict[str, Moments] = {}
    done = set()

    def note(name: str, found: Moments) -> None:
        theirs.setdefault(name, found)  # of a layer that is passed twice, the first time

    def set_line(name: str, own: Moments) -> None:
        if name in done or name not in theirs:
            return
        done.add(name)
        line = _find_line(network.get_submodule(name), own, theirs[name])
        express(model, name, *line)
        lines[name].append(line)

    with _watching(network, lines, note):
        network(images)
    with _watching(model.net, lines, set_line):
        model(images)


def _find_line(theirs: nn.Module, own: Moments, moments: Moments) -> Line:
    """Return slope and offset by which own inputs come out with the moments of their outputs."""
    slope, offset = line_of(theirs)
    mean, var = moments
    own_mean, own_var = own
    ratio = ((var + _EPS) / (own_var + _EPS)).sqrt().clamp(1 / _MOST, _MOST)
    return slope * ratio, offset + slope * mean - slope * ratio * own_mean


@contextmanager
def _watching(
    net: nn.Module, names: Iterable[str], tell: Callable[[str, Moments], None]
) -> Iterator[None]:
    """Tell the moments of what layers are given, just before they compute."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].double()
            over = [axis for axis in range(values.ndim) if axis != 1]
            tell(name, (values.mean(over), values.var(over, unbiased=False)))

        return look

    handles = [net.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
