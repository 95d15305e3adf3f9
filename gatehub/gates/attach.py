"""Gates for training: the frozen backbone, with only a task's own tensors left to learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.func import functional_call

from gatehub.backbone import Backbone
from gatehub.backbone.classifier import is_inside, replace_classifier
from gatehub.errors import AlreadyGatedError, GateError, UngatedLayerWarning
from gatehub.gates.fold import gate_kernels
from gatehub.gates.heads import find_head_places, name_head
from gatehub.gates.kinds import GATE_PARTS
from gatehub.gates.layout import GateLayout, plan_gates
from gatehub.gates.norms import (
    STATISTICS,
    find_gains,
    find_norm_tensors,
    form_gainless,
    has_statistic,
)
from gatehub.gates.sites import copy_plain, find_ungated

if TYPE_CHECKING:
    from typing_extensions import Self


class GatedModel(nn.Module):
    """A backbone with the gates, normalisation values and head of one task to learn.

    Made by `attach_gates`. Its frozen tensors are the backbone's own, by reference; only the
    task's parameters require gradients. It is for one thread: a forward pass lends the gated
    kernels to `net` while it runs. Fold it to serve it.

    Attributes:
        net: the network, with gate parameters beside the kernels that they multiply.
        layout: which gates there are.
        labels: class names, in the order of the logits.
        backbone: identity of the backbone.
        preprocessing: the backbone's.
    """

    def __init__(self, backbone: Backbone, layout: GateLayout, labels: tuple[str, ...]) -> None:
        super().__init__()
        self.layout = layout
        self.labels = labels
        self.backbone = backbone.identity
        self.preprocessing = backbone.preprocessing
        self._heads = backbone.heads
        self.net = copy_plain(backbone.model, exclude=backbone.heads)
        replace_classifier(self.net, len(labels))
        self._norm_names = find_norm_tensors(
            backbone.model, norm=layout.norm, start=layout.start, exclude=backbone.heads
        )
        self._gains = find_gains(backbone.model, norm=layout.norm, sites=layout.sites)
        self._lay_gains_bare(backbone.model)
        self._own_norms()
        self._add_gates()
        for parameter in self.head_parameters().values():
            parameter.requires_grad_(True)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Answer for the task: images (B, 3, H, W), normalised → logits (B, len(labels))."""
        present = dict(self.net.named_parameters(remove_duplicate=False))
        kernels = gate_kernels(present, self.layout, present, gains=self._gains, task="")
        # Tying would lend the kernel of a layer that stands in several places once for each
        # place, and take it back from the first only: the layer would keep it.
        return cast(Tensor, functional_call(self.net, kernels, (images,), tie_weights=False))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch statistics move only where they are the task's own."""
        super().train(mode)
        for name, module in self.net.named_modules():
            kept = [part for part in STATISTICS if has_statistic(module, part)]
            own = any(f"{name}.{part}" in self._norm_names for part in kept)
            if kept and not own and not is_inside(name, self._heads):
                module.eval()
        return self

    def gate_parameters(self) -> dict[str, nn.Parameter]:
        """Return the learned gate tensors, by their name in an adapter file."""
        present = dict(self.net.named_parameters())
        return {name: present[name] for name in self.layout.gate_shapes()}

    def norm_parameters(self) -> dict[str, nn.Parameter]:
        """Return the learned normalisation values, by their name in an adapter file."""
        present = dict(self.net.named_parameters())
        return {name: present[name] for name in self._norm_names if name in present}

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Return the head's parameters, by their name in an adapter file."""
        present = dict(self.net.named_parameters())
        return {name: present[place] for name, place in self._name_head(present).items()}

    def task_tensors(self) -> dict[str, Tensor]:
        """Return everything that is the task's own, by its name in an adapter file.

        The tensors are the live ones, detached; copy them to keep them.
        """
        state = self.net.state_dict()
        own = (*self.layout.gate_shapes(), *self._norm_names)
        return {name: state[name] for name in own} | {
            name: state[place] for name, place in self._name_head(state).items()
        }

    def _name_head(self, present: Mapping[str, Tensor]) -> dict[str, str]:
        taken = {*self.layout.gate_shapes(), *self._norm_names}
        return name_head(find_head_places(present, self._heads), self._heads, taken=taken)

    def _lay_gains_bare(self, model: nn.Module) -> None:
        """Put gains that are the task's own beside their kernels, instead of into them."""
        for name, kernel in form_gainless(model, self._gains).items():
            site = self.net.get_submodule(name.rpartition(".")[0])
            site.weight = nn.Parameter(kernel, requires_grad=False)
        for name in self._gains.values():
            parent, _, leaf = name.rpartition(".")
            self.net.get_submodule(parent).register_parameter(leaf, model.get_parameter(name))

    def _own_norms(self) -> None:
        """Replace the task's normalisation tensors by copies, so that the backbone's stay."""
        for name in self._norm_names:
            parent, _, leaf = name.rpartition(".")
            module = self.net.get_submodule(parent)
            tensor = cast(Tensor, getattr(module, leaf)).detach().clone()
            is_buffer = leaf in module._buffers
            setattr(module, leaf, tensor if is_buffer else nn.Parameter(tensor))
            counter = getattr(module, "num_batches_tracked", None)
            if counter is not None and leaf == "running_mean":
                module.num_batches_tracked = counter.clone()

    def _add_gates(self) -> None:
        for site, gate in self.layout.sites.items():
            module = self.net.get_submodule(site)
            like = cast(Tensor, module.weight)
            for part, tensor in gate.kind.initialise(*gate.shape, like=like).items():
                module.register_parameter(part, nn.Parameter(tensor))


def attach_gates(
    backbone: Backbone,
    *,
    labels: Sequence[str],
    gates: str = "auto",
    norm: str = "affine",
    start: str | None = None,
) -> GatedModel:
    """Make a model that learns one task on a frozen backbone.

    At first it computes exactly what the backbone computes, under a fresh head. The backbone
    itself is not touched, so any number of tasks can be attached to it beside each other.

    Args:
        backbone: from `load_backbone`.
        labels: class names, in the order of the logits; at least one, no two alike.
        gates: "auto", "full", "lowrank:R" or "scale"; see `gatehub.gates.kinds`.
        norm: "frozen", "affine" or "stats": which normalisation values are the task's own.
        start: first stage that is gated, such as "layer3". What comes before is shared by all
            tasks that start there. None gates everything.

    Raises:
        AlreadyGatedError: the model carries gates already.
        GateError: bad labels, kind, normalisation mode or stage.
    """
    if isinstance(backbone, nn.Module) and any(map(_carries_gates, backbone.modules())):
        raise AlreadyGatedError(
            "The model carries gates already; gates on gates would multiply.",
            hint="Attach to the backbone itself; it stays as it is and can be attached to again.",
        )
    if not isinstance(backbone, Backbone):
        raise GateError(
            f"Gates are attached to a Backbone, not to a {type(backbone).__name__}.",
            hint="Use load_backbone(NAME), or Backbone(model) around a timm model of your own.",
        )
    names = tuple(labels)
    if isinstance(labels, str) or not names or not all(isinstance(n, str) and n for n in names):
        raise GateError(f"labels is {labels!r}; expected class names, at least one.")
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise GateError(f"labels holds {', '.join(map(repr, twice))} more than once.")
    layout = plan_gates(backbone.model, exclude=backbone.heads, gates=gates, norm=norm, start=start)
    ungated = find_ungated(backbone.model, start=start, exclude=backbone.heads)
    if ungated:
        left = ", ".join(map(str, ungated))
        warnings.warn(
            f"{backbone.identity.architecture} keeps layers without gates: {left}.",
            UngatedLayerWarning,
            stacklevel=2,
        )
    return GatedModel(backbone, layout, names)


def _carries_gates(module: nn.Module) -> bool:
    return isinstance(module, GatedModel) or not GATE_PARTS.isdisjoint(module._parameters)
