"""Which kind of gate each site gets, so that an adapter stays small on every network."""

from __future__ import annotations

from collections.abc import Sequence

from gatehub.gates.kinds import GateKind, parse_kind
from gatehub.gates.sites import Site

AUTO, NONE = "auto", "none"
AUTO_RANK = 4

# How much of a backbone's parameters the gates and normalisation values of one task may be.
SPATIAL_SHARE = 0.15
POINTWISE_SHARE = 0.08

_FULL, _SCALE = GateKind(name="full"), GateKind(name="scale")


def choose_kinds(
    policy: str, sites: Sequence[Site], *, backbone_values: int, norm_values: int
) -> tuple[GateKind, ...]:
    """Return the kind that a policy gives each site.

    A kind's name takes that kind everywhere. "auto" takes "full" for spatial kernels and
    "lowrank:4" for pointwise ones, where a full gate would be as large as the weights. Where that
    would make the task's gates and normalisation values more than 15 % of the backbone (8 % where
    pointwise kernels hold most of its weights), it takes lower ranks, and at last "scale"
    for every site: that happens on small networks, where rank 4 is much of a layer.

    Args:
        policy: "auto" or a kind's name; any where there are no sites.
        sites: from `find_sites`.
        backbone_values: parameters of the backbone without its classifier.
        norm_values: normalisation values that are the task's own.

    Raises:
        GateKindError: no such policy.
    """
    if not sites:
        return ()
    if policy != AUTO:
        return (parse_kind(policy),) * len(sites)
    pointwise = sum(site.kernel_values for site in sites if site.is_pointwise)
    everything = sum(site.kernel_values for site in sites)
    share = POINTWISE_SHARE if 2 * pointwise > everything else SPATIAL_SHARE
    budget = share * backbone_values - norm_values
    kinds: tuple[GateKind, ...] = ()
    for rank in range(AUTO_RANK, 0, -1):
        low = GateKind(name="lowrank", rank=rank)
        kinds = tuple(_smaller(low, site) if site.is_pointwise else _FULL for site in sites)
        if count_values(kinds, sites) <= budget:
            return kinds
    return tuple(_smaller(_SCALE, site) for site in sites)


def read_policy(text: str) -> GateKind | str:
    """Read what a user may ask for as gates: "auto" and "none" as they are, or a kind.

    Raises:
        GateKindError: anything else.
    """
    return text if text in (AUTO, NONE) else parse_kind(text)


def count_values(kinds: Sequence[GateKind], sites: Sequence[Site]) -> int:
    """Return how many numbers the gates of some sites have."""
    return sum(
        kind.count(site.out_channels, site.in_channels)
        for kind, site in zip(kinds, sites, strict=True)
    )


def _smaller(kind: GateKind, site: Site) -> GateKind:
    """Return the kind, or "full" where that costs no more and can do more."""
    shape = site.out_channels, site.in_channels
    return kind if kind.count(*shape) < _FULL.count(*shape) else _FULL
