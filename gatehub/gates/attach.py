"""Gates for training: the frozen backbone, with only a task's own tensors left to learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gatehub._arguments import check_argument, checked
from gatehub._text import quote, shorten
from gatehub.backbone import Backbone
from gatehub.backbone.blueprint import Blueprint
from gatehub.backbone.checkpointing import watch_passes
from gatehub.backbone.classifier import is_inside, replace_classifier
from gatehub.backbone.seal import Seal, refuse_rounded
from gatehub.backbone.structure import own_memory
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import AlreadyGatedError, GateError, UngatedLayerWarning
from gatehub.gates.gated_layer import GatedLayer, gate_layer, place_of
from gatehub.gates.heads import find_head_places, name_head
from gatehub.gates.layout import GateLayout, add_shifts, find_own_values, plan_gates
from gatehub.gates.norms import STATISTICS, find_gains, form_gainless, has_statistic
from gatehub.gates.sites import copy_plain, find_ungated

if TYPE_CHECKING:
    from typing_extensions import Self


class GatedModel(nn.Module):
    """A backbone with the gates, normalisation values and head of one task to learn.

    Made by `attach_gates`. Only the task's parameters require gradients; the frozen ones are
    copies, so nothing done to the model reaches the backbone. Gates are applied wherever a layer's
    weight is read: in `net.forward_features` and the other entrances of timm's network, in a block
    called by itself, and where gradient checkpointing computes a block again.

    Attributes:
        net: the network; its gated layers compute their weight from a frozen kernel and a gate.
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
        theirs = backbone.model
        self.net = copy_plain(theirs, exclude=backbone.heads)
        replace_classifier(self.net, len(labels))
        own_memory(self.net, lenders=(*theirs.parameters(), *theirs.buffers()))
        self._gains = find_gains(theirs, norm=layout.norm, sites=layout.sites)
        present = {*self._gains.values(), *self.net.state_dict()}
        norms = find_own_values(theirs, layout, exclude=backbone.heads)
        self._norm_names = tuple(name for name in norms if name in present)
        self._gate_layers(theirs)
        self._free_norms()
        # Name in an adapter file → name in the network.
        self._places = {name: name for name in self._norm_names}
        for site, gate in layout.sites.items():
            layer = self.net.get_submodule(site)
            for part in gate.parts:
                self._places[f"{site}.{part}"] = f"{site}.{place_of(layer, part)}"
            if site in self._gains:
                self._places[self._gains[site]] = f"{site}.{place_of(layer, 'gain')}"
        self._places |= self._name_head(self.net.state_dict())
        self.requires_grad_(True)
        watch_passes(self.net)
        self.train(False)
        self._seal = Seal(self._frozen())
        # Hooks that look on, and other ways to run a layer again, belong to a training.
        self._blueprint = Blueprint(self.net, exclude=self._heads, functions=False)

    def forward(self, images: Tensor) -> Tensor:
        """Answer for the task: images (B, 3, H, W), normalised → logits (B, len(labels))."""
        return cast(Tensor, self.net(images))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; batch statistics move only where they are the task's own."""
        super().train(mode)
        for name, module in self.net.named_modules():
            kept = [part for part in STATISTICS if has_statistic(module, part)]
            own = any(f"{name}.{part}" in self._norm_names for part in kept)
            if kept and not own and not is_inside(name, self._heads):
                module.eval()
            if is_parametrized(module):  # spectral norm moves in training
                cast(nn.Module, module.parametrizations).eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let the task's parameters learn, or stop them; what is the backbone's stays frozen."""
        learned = {*self._places.values()}
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(requires_grad and name in learned)
        return self

    def gate_parameters(self) -> dict[str, nn.Parameter]:
        """Return the learned gate tensors, by their name in an adapter file."""
        return self._learned(self.layout.gate_shapes())

    def gate_rests(self) -> dict[str, float]:
        """Return the value of each gate tensor at which M = 1, by its name in an adapter file."""
        return {
            f"{site}.{part}": gate.kind.rest
            for site, gate in self.layout.sites.items()
            for part in gate.parts
        }

    def norm_parameters(self) -> dict[str, nn.Parameter]:
        """Return the learned normalisation values and shifts, by their name in an adapter file."""
        return self._learned(self._norm_names)

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """Return the head's parameters, by their name in an adapter file."""
        others = {*self.layout.gate_shapes(), *self._norm_names}
        return self._learned(name for name in self._places if name not in others)

    def task_tensors(self) -> dict[str, Tensor]:
        """Return everything that is the task's own, by its name in an adapter file.

        The tensors are the live ones, detached; copy them to keep them.
        """
        state = self.net.state_dict()
        return {name: state[place] for name, place in self._places.items()}

    def check_frozen(self) -> None:
        """Refuse to go on where what is frozen is not that of the backbone any more.

        Raises:
            GateError: something wrote into frozen weights, such as a training of all parameters,
                or the state of a model on another backbone; a cast has rounded them; or a layer
                has another class or setting.
        """
        changed = self._seal.find_changed(self._frozen())
        if changed:
            raise GateError(
                f"The frozen weights of this gated model have changed since gates were attached "
                f"('{changed[0]}', {len(changed)} in all), and an adapter does not hold them.",
                hint=f"Attach gates to {self.backbone.name} again, and train only what requires "
                "gradients. To cast a gated model, cast the whole of it and not its net.",
            )
        refuse_rounded(
            self.backbone,
            self._seal.rounded_to,
            hint=f"Attach gates to {self.backbone.name} again, copy this model's task_tensors() "
            "into those of the new one, and see how well it does. To train in half precision, use "
            "torch.autocast, which leaves the weights as they are.",
        )
        if (change := self._blueprint.find_change(self.net)) is not None:
            raise GateError(
                f"The network of this gated model has changed since gates were attached: {change}. "
                "An adapter does not hold that, so it would answer otherwise on the backbone.",
                hint="Set it back. To train on a network that differs, change it first, and make "
                "a Backbone of it.",
            )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast every tensor, on purpose; what changed before is still told."""
        before = {name: tensor.detach() for name, tensor in self._frozen().items()}
        unchanged = not self._seal.find_changed(before)
        applied: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if unchanged:
            self._seal = self._seal.follow(before, self._frozen())
        return applied

    def _learned(self, names: Iterable[str]) -> dict[str, nn.Parameter]:
        present = dict(self.net.named_parameters())
        places = ((name, self._places[name]) for name in names)
        return {name: present[place] for name, place in places if place in present}

    def _frozen(self) -> dict[str, Tensor]:
        """Return what is the backbone's; integers, which count passes, aside."""
        state = self.net.state_dict(keep_vars=True)
        own = {id(state[place]) for place in self._places.values()}
        return {n: t for n, t in state.items() if id(t) not in own and t.is_floating_point()}

    def _name_head(self, present: Mapping[str, Tensor]) -> dict[str, str]:
        taken = {*self.layout.gate_shapes(), *self._norm_names}
        return name_head(find_head_places(present, self._heads), self._heads, taken=taken)

    def _gate_layers(self, model: nn.Module) -> None:
        """Gate each site; gains that are the task's own go beside its kernel, not into it."""
        gainless = form_gainless(model, self._gains)
        for site, gate in self.layout.sites.items():
            layer = self.net.get_submodule(site)
            gain = None
            if site in self._gains:
                gain = model.get_parameter(self._gains[site]).detach().clone()
                layer.weight = nn.Parameter(gainless[f"{site}.weight"])
            gate_layer(layer, gate, gain=gain)

    def _free_norms(self) -> None:
        """Untie the task's normalisation values and shifts from others, that may be frozen."""
        for name in self._norm_names:
            if name in self._gains.values():
                continue
            parent, _, leaf = name.rpartition(".")
            module = self.net.get_submodule(parent)
            if (value := module._parameters.get(leaf)) is not None:
                module._parameters[leaf] = nn.Parameter(value.detach().clone())


@checked(GateError, but=("backbone",))
def attach_gates(
    backbone: Backbone,
    *,
    labels: Sequence[str],
    gates: str = "auto",
    norm: str = "affine",
    start: str | None = None,
    shift: bool = False,
) -> GatedModel:
    """Make a model that learns one task on a frozen backbone.

    At first it computes exactly what the backbone computes, under a fresh head. The backbone
    itself is not touched, so any number of tasks can be attached to it beside each other.

    Args:
        backbone: from `load_backbone`.
        labels: class names, in the order of the logits; at least one, no two alike.
        gates: "auto", "full", "lowrank:R" or "scale", see `gatehub.gates.kinds`; or "none" for
            a task of normalisation values and a head alone.
        norm: "frozen", "affine" or "stats": which normalisation values are the task's own.
        start: first stage that is gated, such as "layer3". What comes before is shared by all
            tasks that start there. None gates everything.
        shift: learn the bias of each gated layer, too, where no batch norm would take that away
            again; see `gatehub.gates.norms`.

    Raises:
        AlreadyGatedError: the model carries gates already.
        BackboneChangedError: the backbone has changed since it was loaded.
        GateError: bad labels, kind, normalisation mode or stage; no layer to which a shift adds
            anything; or a cast has rounded the backbone's weights since they were loaded.
    """
    if isinstance(backbone, nn.Module) and any(
        isinstance(module, GatedModel | GatedLayer) for module in backbone.modules()
    ):
        raise AlreadyGatedError(
            "The model already has gates; a second set would multiply with the first.",
            hint="Attach to the backbone itself; it stays as it is and can be attached to again.",
        )
    check_argument(backbone, Backbone, "backbone", where="attach_gates()", error=GateError)
    names = tuple(map(str, labels))  # numpy has texts of its own
    if not all(names) or not names:
        raise GateError(
            f"labels is {shorten(repr(labels))}; expected class names, at least one.",
            hint="Give them in the order of the logits, such as labels=['cat', 'dog'].",
        )
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise GateError(
            f"labels holds {', '.join(map(quote, twice))} more than once.",
            hint="Name each class once.",
        )
    backbone.check_unchanged()
    refuse_rounded(
        backbone.identity,
        backbone.rounded_to,
        hint="Attach gates before the cast, and train under torch.autocast, which leaves the "
        "weights as they are; or make a Backbone of the rounded model, which gets a digest of its "
        "own.",
    )
    layout = plan_gates(backbone.model, exclude=backbone.heads, gates=gates, norm=norm, start=start)
    if shift:
        size = backbone.preprocessing.input_size
        layout = add_shifts(backbone.model, layout, input_size=size)
    ungated = find_ungated(backbone.model, start=start, exclude=backbone.heads)
    if ungated and layout.sites:
        left = ", ".join(map(str, ungated))
        warnings.warn(
            f"{backbone.identity.architecture} keeps layers without gates: {left}.",
            UngatedLayerWarning,
            stacklevel=3,
        )
    with pin_settings():
        return GatedModel(backbone, layout, names)
