"""Which gates and normalisation values a task learns on a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gatehub.backbone import Backbone
from gatehub.errors import GateError
from gatehub.gates.kinds import GateKind, choose_kind
from gatehub.gates.sites import find_sites, is_inside, modules_from

NORMS = ("frozen", "affine", "stats")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteGate:
    """The gate of one site.

    Args:
        kind: the form of its matrix.
        shape: (O, I/groups) of its matrix.
    """

    kind: GateKind
    shape: tuple[int, int]

    @property
    def parts(self) -> dict[str, tuple[int, ...]]:
        """Shapes of its learned tensors, by the last part of their name."""
        return self.kind.shapes(*self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLayout:
    """What a task learns beside its head.

    Args:
        policy: "auto" or a kind's name, as the user gave it.
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
        if self.norm not in NORMS:
            raise GateError(
                f"Normalisation mode is {self.norm!r}; expected one of {', '.join(NORMS)}."
            )

    def gate_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all learned gate tensors, by their name in an adapter file."""
        return {
            f"{site}.{part}": shape
            for site, gate in self.sites.items()
            for part, shape in gate.parts.items()
        }


def plan_gates(
    backbone: Backbone, *, gates: str = "auto", norm: str = "affine", start: str | None = None
) -> GateLayout:
    """Decide which gates a task gets on a backbone; see `attach_gates` for the arguments.

    Raises:
        GateKindError: no such kind.
        SiteError: no such stage, or a layer that cannot be gated.
        GateError: no such normalisation mode.
    """
    sites = find_sites(backbone.model, start=start, exclude=backbone.head_prefix)
    return GateLayout(
        policy=gates,
        start=start,
        norm=norm,
        sites={
            site.name: SiteGate(
                kind=choose_kind(gates, site), shape=(site.out_channels, site.in_channels)
            )
            for site in sites
        },
    )


def find_norm_tensors(
    model: nn.Module, *, norm: str, start: str | None, exclude: str
) -> tuple[str, ...]:
    """Return the names of the normalisation tensors that are the task's own.

    Args:
        model: a timm model.
        norm: the mode; see `GateLayout`.
        start: name of the first stage that counts, or None.
        exclude: name of the module that holds the classifier.
    """
    wanted = {
        "frozen": (),
        "affine": ("weight", "bias"),
        "stats": ("weight", "bias", "running_mean", "running_var"),
    }[norm]
    return tuple(
        f"{name}.{part}"
        for name, module in modules_from(model, start).items()
        if isinstance(module, _BatchNorm | nn.GroupNorm | nn.LayerNorm)
        and not is_inside(name, exclude)
        for part in wanted
        if getattr(module, part, None) is not None
    )
