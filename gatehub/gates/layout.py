"""Which gates and normalisation values a task learns on a backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from gatehub._text import quote
from gatehub.backbone.classifier import is_inside
from gatehub.errors import GateError
from gatehub.gates.kinds import GateKind
from gatehub.gates.norms import NORMS, find_norm_tensors, find_shifts
from gatehub.gates.policy import NONE, choose_kinds
from gatehub.gates.sites import find_sites, modules_from


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteGate:
    """The gate of one site.

    Args:
        kind: the form of its matrix.
        shape: (O, I/groups) of its matrix.
        shift: whether the layer's bias is the task's own, too; see `add_shifts`.
    """

    kind: GateKind
    shape: tuple[int, int]
    shift: bool = False

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its learned tensors, by the last part of their name."""
        return self.kind.shapes(*self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLayout:
    """What a task learns beside its head.

    Args:
        policy: "auto", "none" or a kind's name, as the user gave it.
        start: name of the first gated stage, or None.
        norm: "frozen" (no values of its own), "affine" (weight and bias of each normalisation)
            or "stats" (running mean and variance too).
        sites: gates by site, in the backbone's order.
    """

    policy: str
    start: str | None
    norm: str
    sites: Mapping[str, SiteGate]

    def __post_init__(self) -> None:
        check_norm(self.norm)

    @property
    def has_shift(self) -> bool:
        """Whether a layer's bias is the task's own."""
        return any(gate.shift for gate in self.sites.values())

    def shift_names(self) -> tuple[str, ...]:
        """Names of the biases that are the task's own, in an adapter file and in the network."""
        return tuple(f"{site}.bias" for site, gate in self.sites.items() if gate.shift)

    def gate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all learned gate tensors, by their name in an adapter file."""
        return {
            f"{site}.{part}": shape
            for site, gate in self.sites.items()
            for part, shape in gate.parts.items()
        }

    def gate_rests(self) -> dict[str, float]:
        """The value of each gate tensor at which M = 1, by its name in an adapter file."""
        return {
            f"{site}.{part}": gate.kind.rest
            for site, gate in self.sites.items()
            for part in gate.parts
        }


def plan_gates(
    model: nn.Module,
    *,
    exclude: Sequence[str],
    gates: str = "auto",
    norm: str = "affine",
    start: str | None = None,
) -> GateLayout:
    """Decide which gates a task gets on a backbone.

    Args:
        model: a timm model, on any device.
        exclude: names of the modules that hold the classifier.
        gates: see `attach_gates`.
        norm: see `attach_gates`.
        start: see `attach_gates`.

    Raises:
        GateKindError: no such kind.
        SiteError: no such stage, or a layer that cannot be gated.
        GateError: no such normalisation mode.
    """
    check_norm(norm)
    modules_from(model, start)  # refuses a stage that is not there, for no gates too
    sites = () if gates == NONE else find_sites(model, start=start, exclude=exclude)
    parameters = dict(model.named_parameters())
    norms = find_norm_tensors(model, norm=norm, start=start, exclude=exclude)
    kinds = choose_kinds(
        gates,
        sites,
        backbone_values=sum(
            p.numel() for name, p in parameters.items() if not is_inside(name, exclude)
        ),
        norm_values=sum(parameters[name].numel() for name in norms if name in parameters),
    )
    return GateLayout(
        policy=gates,
        start=start,
        norm=norm,
        sites={
            site.name: SiteGate(kind=kind, shape=(site.out_channels, site.in_channels))
            for site, kind in zip(sites, kinds, strict=True)
        },
    )


def add_shifts(
    model: nn.Module, layout: GateLayout, *, input_size: tuple[int, int, int]
) -> GateLayout:
    """Return a layout with a shift for each gated layer to which it adds something.

    The arguments and errors are those of `find_shifts`.
    """
    shifted = find_shifts(model, layout.sites, input_size=input_size)
    sites = {site: replace(gate, shift=site in shifted) for site, gate in layout.sites.items()}
    return replace(layout, sites=sites)


def find_own_values(
    model: nn.Module, layout: GateLayout, *, exclude: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of a task's values that are neither gates nor head: of norms, and shifts.

    Args:
        model: a timm model, on any device.
        layout: of the task.
        exclude: names of the modules that hold the classifier.
    """
    norms = find_norm_tensors(model, norm=layout.norm, start=layout.start, exclude=exclude)
    return (*norms, *layout.shift_names())


def check_norm(norm: str) -> None:
    """Refuse a normalisation mode that does not exist.

    Raises:
        GateError: no such mode.
    """
    if norm not in NORMS:
        raise GateError(
            f"Normalisation mode is {quote(norm, 80)}; expected one of {', '.join(NORMS)}.",
            hint="'affine' is what most tasks want.",
        )
