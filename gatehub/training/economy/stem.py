"""The frozen layers before the first gate: what they give for an image is computed once."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gatehub.compiler.forward import draw_noise
from gatehub.gates.attach import GatedModel
from gatehub.training.batches import Batch, evaluation_batches
from gatehub.training.examples import Examples

# As a share of the largest number. The same operations round alike, but for where memory lies.
_TOLERANCE = 1e-4


class Stem:
    """What a gated network computes before it reads anything that is learned.

    Args:
        model: the whole of it, in evaluation mode whenever `compute` is called.
        seam: the first module that does not belong to the stem.
        rest: the model without its stem: what the stem gives → logits. Behind the seam it is made
            of the same modules, so training one of the two trains the other.
    """

    def __init__(self, model: GatedModel, seam: nn.Module, rest: GatedModel) -> None:
        self._model = model
        self._seam = seam
        self.rest = rest

    def count_bytes(self, images: int) -> int:
        """Return what it takes to hold what the stem gives for so many images."""
        return images * self.compute(_draw_images(self._model, 1)).nbytes

    @torch.no_grad()
    def compute(self, images: Tensor) -> Tensor:
        """Return what enters the seam, (B, ...), for images (B, 3, H, W), normalised."""

        def stop(_: nn.Module, given: tuple[Any, ...]) -> None:
            raise _Reached(given[0])

        hook = self._seam.register_forward_pre_hook(stop, prepend=True)
        try:
            self._model(images.to(next(self._model.parameters()).device))
        except _Reached as reached:
            return reached.features
        finally:
            hook.remove()
        raise RuntimeError("This pass does not go through the seam.")

    def compute_batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches with what the stem gives in place of the images."""
        for images, targets in batches:
            yield self.compute(images).cpu(), targets


class _Reached(Exception):
    """A pass has come to the seam."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def hold_features(stem: Stem, examples: Examples, *, workers: int = 0) -> Examples:
    """Return images with what a stem gives for them.

    It is computed in an order and in batches of its own, so it is the same, bit for bit, in a run
    that is continued and in each process of a team.

    Args:
        stem: of the network that is going to be trained.
        examples: they stay as they are; they are looked at as for an evaluation.
        workers: processes that decode images beside this one.

    Raises:
        InputError: an image cannot be decoded any more.
    """
    one = stem.compute(_draw_images(stem.rest, 1))
    last = one.ndim == 4 and one.is_contiguous(memory_format=torch.channels_last)
    held = torch.empty(
        (len(examples), *one.shape[1:]),
        dtype=one.dtype,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )
    done = 0
    images = evaluation_batches(examples, stem.rest.preprocessing.transform(), workers=workers)
    for features, targets in stem.compute_batches(images):
        held[done : done + len(targets)] = features
        done += len(targets)
    return replace(examples, features=held.unbind())


def find_stem(model: GatedModel) -> Stem | None:
    """Return the stem of a network whose gates start late; None if it cannot be run apart.

    A network is anybody's code, so it is tried whether the rest does with what the stem gives what
    the whole does with images.

    Args:
        model: in evaluation mode, made ready to be trained; it stays as it is.
    """
    if model.layout.start is None:
        return None
    noise = _draw_images(model, 2)
    with torch.random.fork_rng([noise.device] if noise.is_cuda else []), torch.no_grad():
        called, path = _follow_pass(model.net, noise)
        for place in reversed(path):  # the deepest module has most before it
            try:
                stem = _cut(model, called, place)
                if stem is not None and _fits(model, stem, noise):
                    return stem
            # What was left out may have been read, or be given several values: no stem, then.
            except Exception:
                continue
            finally:
                model.eval()
    return None


def _draw_images(model: GatedModel, count: int) -> Tensor:
    first = next(model.parameters())
    return draw_noise(
        count,
        model.preprocessing.input_size,
        seed=0,
        device=first.device,
        dtype=first.dtype,
        memory_format=torch.contiguous_format,
    )


def _follow_pass(net: nn.Module, images: Tensor) -> tuple[list[str], list[int]]:
    """Run a network, and see which modules are called.

    Returns:
        The names of the modules in the order of the calls, and the places in it of those that were
        under way, from the outermost, when the first one was called that learns.
    """
    called: list[str] = []
    under_way: list[int] = []
    path: list[int] = []

    def enter(name: str, module: nn.Module) -> None:
        under_way.append(len(called))
        called.append(name)
        if not path and any(p.requires_grad for p in module.parameters(recurse=False)):
            path.extend(under_way)

    hooks = []
    for name, module in net.named_modules():
        hooks += [
            module.register_forward_pre_hook(lambda module, _, name=name: enter(name, module)),
            module.register_forward_hook(lambda *_: under_way.pop() and None),
        ]
    try:
        net(images.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return called, path


def _cut(model: GatedModel, called: Sequence[str], place: int) -> Stem | None:
    """Return a stem that ends where a module is called; None if nothing frozen was called before.

    Args:
        model: the whole.
        called: from `_follow_pass`.
        place: of the module in it.
    """
    before = {*called[:place]}.difference(called[place:])
    left_out = {*_list_frozen(model.net, before, {*called[place:]})}
    if not left_out:
        return None
    rest = copy.copy(model)
    rest._modules = {**model._modules, "net": _leave_out(model.net, left_out)}
    return Stem(model, model.net.get_submodule(called[place]), rest)


def _list_frozen(
    module: nn.Module, before: Collection[str], after: Collection[str], prefix: str = ""
) -> Iterator[str]:
    """Yield the names of the largest modules without anything learned that ran before only."""

    def has(names: Collection[str], name: str) -> bool:
        return any(f"{other}.".startswith(f"{name}.") for other in names)

    for child, part in module.named_children():
        name = f"{prefix}{child}"
        if any(parameter.requires_grad for parameter in part.parameters()):
            yield from _list_frozen(part, before, after, f"{name}.")
        elif has(before, name) and not has(after, name):
            yield name


def _leave_out(module: nn.Module, names: Collection[str], prefix: str = "") -> nn.Module:
    """Return a module that hands on what some modules within are given; it shares all others."""
    shell = copy.copy(module)
    shell._modules = {}
    for child, part in module._modules.items():
        name = f"{prefix}{child}"
        if name in names:
            part = nn.Sequential()  # checkpointed stages are gone through, not called
        elif part is not None and any(other.startswith(f"{name}.") for other in names):
            part = _leave_out(part, names, f"{name}.")
        shell._modules[child] = part
    return shell


def _fits(model: GatedModel, stem: Stem, images: Tensor) -> bool:
    """Whether stem and rest are the whole: in evaluation, in training, and for each image alone."""
    features = stem.compute(images.clone())
    if len(features) != len(images) or not _agree(stem.rest(features), model(images.clone())):
        return False
    # Not if the rest has changed what it was given, nor if an image depends on its batch.
    if not all(_agree(stem.compute(images[i : i + 1]), features[i : i + 1]) for i in range(2)):
        return False
    model.train()
    stem.rest.train()
    try:
        drawn = _read_generators(images.device)
        if not _agree(stem.compute(images.clone()), features):
            return False
        if not all(map(torch.equal, drawn, _read_generators(images.device))):
            return False
        if model.layout.norm == "stats":  # a pass would move them
            return True
        answers = []
        for network, given in ((model, images), (stem.rest, features)):
            torch.manual_seed(0)
            answers.append(network(given.clone()))
        return _agree(*answers)
    finally:
        model.eval()
        stem.rest.eval()


def _read_generators(device: torch.device) -> list[Tensor]:
    own = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *own]


def _agree(found: Tensor, expected: Tensor) -> bool:
    largest = expected.abs().max().item()
    return found.shape == expected.shape and torch.allclose(
        found, expected, rtol=0, atol=_TOLERANCE * largest
    )
