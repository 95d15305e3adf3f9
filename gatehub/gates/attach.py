"""Gates for training: the frozen backbone, with only a task's own tensors left to learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from gatehub.backbone import Backbone, replace_classifier
from gatehub.errors import AlreadyGatedError, GateError
from gatehub.gates.fold import HEAD, gate_kernels, rename_head
from gatehub.gates.kinds import GATE_PARTS
from gatehub.gates.layout import GateLayout, find_norm_tensors, plan_gates
from gatehub.gates.sites import copy_plain, is_inside

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
        self._head_prefix = backbone.head_prefix
        self.net = copy_plain(backbone.model, exclude=backbone.head_prefix)
        replace_classifier(self.net, len(labels))
        self._norm_names = find_norm_tensors(
            self.net, norm=layout.norm, start=layout.start, exclude=backbone.head_prefix
        )
        self._own_norms()
        self._add_gates()
        self.net.get_submodule(backbone.head_prefix).requires_grad_(True)
        self.train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Answer for the task: images (B, 3, H, W), normalised → logits (B, len(labels))."""
        present = dict(self.net.named_parameters())
        kernels = gate_kernels(present, self.layout, present, task="")
        return cast(Tensor, functional_call(self.net, kernels, (images,)))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch statistics move only where they are the task's own."""
        super().train(mode)
        for name, module in self.net.named_modules():
            if (
                isinstance(module, _BatchNorm)
                and f"{name}.running_mean" not in self._norm_names
                and not is_inside(name, self._head_prefix)
            ):
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
        head = self.net.get_submodule(self._head_prefix)
        return {f"{HEAD}.{name}": p for name, p in head.named_parameters()}

    def task_tensors(self) -> dict[str, Tensor]:
        """Return everything that is the task's own, by its name in an adapter file.

        The tensors are the live ones, detached; copy them to keep them.
        """
        state = self.net.state_dict()
        head = {
            rename_head(name, self._head_prefix, HEAD): tensor
            for name, tensor in state.items()
            if is_inside(name, self._head_prefix) and tensor.is_floating_point()
        }
        own = (*self.layout.gate_shapes(), *self._norm_names)
        return {name: state[name] for name in own} | head

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
    layout = plan_gates(backbone, gates=gates, norm=norm, start=start)
    return GatedModel(backbone, layout, names)


def _carries_gates(module: nn.Module) -> bool:
    return isinstance(module, GatedModel) or not GATE_PARTS.isdisjoint(module._parameters)
