from __future__ import annotations

import pytest

from gatehub.errors import GateKindError
from gatehub.gates.policy import choose_kinds, count_values
from gatehub.gates.sites import Site

KINDS = ["full", "scale", "lowrank:1", "lowrank:7"]
PLENTY = 10**9


def site(out_channels: int, in_channels: int, *, side: int) -> Site:
    return Site(
        name="conv", out_channels=out_channels, in_channels=in_channels, kernel_size=(side, side)
    )


def choose(policy: str, *sites: Site, backbone: int = PLENTY, norms: int = 0) -> list[str]:
    kinds = choose_kinds(policy, sites, backbone_values=backbone, norm_values=norms)
    return [str(kind) for kind in kinds]


@pytest.mark.parametrize(
    ("out_channels", "in_channels", "side", "expected"),
    [
        (64, 64, 3, "full"),
        (64, 1, 3, "full"),  # depthwise
        (64, 64, 1, "lowrank:4"),
        (9, 8, 1, "lowrank:4"),  # 68 values instead of 72
        (8, 8, 1, "full"),  # 64 either way: no gain in a low rank
        (64, 4, 1, "full"),
    ],
)
def test_auto_is_full_for_spatial_kernels_and_low_rank_where_that_is_smaller(
    out_channels: int, in_channels: int, side: int, expected: str
) -> None:
    assert choose("auto", site(out_channels, in_channels, side=side)) == [expected]


def test_a_long_thin_kernel_is_spatial() -> None:
    thin = Site(name="conv", out_channels=64, in_channels=64, kernel_size=(1, 7))
    assert choose("auto", thin) == ["full"]


@pytest.mark.parametrize("policy", KINDS)
def test_any_other_policy_holds_everywhere_at_any_price(policy: str) -> None:
    sites = site(64, 64, side=1), site(64, 64, side=3)
    assert choose(policy, *sites, backbone=1) == [policy, policy]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(GateKindError, match="'lora' is not a gate kind"):
        choose("lora", site(64, 64, side=3))


@pytest.mark.parametrize(
    ("backbone", "norms", "expected"),
    [
        # 64 + 64 channels at rank 4 are 512 values, and the depthwise gate has 64.
        (7200, 0, ["full", "lowrank:4"]),  # 8 % are 576: exactly enough
        (7199, 0, ["full", "lowrank:3"]),
        (7200, 1, ["full", "lowrank:3"]),
        (7200, 128, ["full", "lowrank:3"]),
        (7200, 129, ["full", "lowrank:2"]),
        (2400, 0, ["full", "lowrank:1"]),
        (2399, 0, ["full", "scale"]),  # a full gate on a depthwise kernel is a scale
    ],
)
def test_auto_takes_lower_ranks_where_pointwise_kernels_would_cost_more_than_8_percent(
    backbone: int, norms: int, expected: list[str]
) -> None:
    depthwise, pointwise = site(64, 1, side=3), site(64, 64, side=1)
    assert choose("auto", depthwise, pointwise, backbone=backbone, norms=norms) == expected


def test_auto_may_cost_15_percent_where_spatial_kernels_hold_the_weights() -> None:
    spatial, pointwise = site(64, 64, side=3), site(64, 64, side=1)
    # 4096 + 512 values.
    assert choose("auto", spatial, pointwise, backbone=30720) == ["full", "lowrank:4"]
    assert choose("auto", spatial, pointwise, backbone=30719) == ["full", "lowrank:3"]
    assert choose("auto", spatial, pointwise, backbone=20000) == ["scale", "scale"]


def test_the_values_of_gates_are_counted() -> None:
    sites = site(6, 4, side=3), site(6, 4, side=1)
    kinds = choose_kinds("lowrank:2", sites, backbone_values=1, norm_values=0)
    assert count_values(kinds, sites) == 2 * 2 * (6 + 4)
