"""Adapters with known answers, and what their sizes and their likeness come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.runtime.engine import Engine
from tests.runtime.known_answers import KnownAnswers, make_known
from tests.tiny import make_backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of an adapter.

    Args:
        digest: of its tensors.
        gates: bytes of its gates.
        folded: bytes of its folded weights.
        factors: bytes of what it has of its own in a shared pass; 0 where it shares none.
        stem: equal for tasks that run together.
        probed: whether a load asks it its probe.
        sound: whether it answers its probe.
    """

    digest: str
    gates: int
    folded: int
    factors: int
    stem: int
    probed: bool
    sound: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A backbone, adapters on it, and the facts of each.

    The last adapter is the first one with a probe that it does not answer.
    """

    backbone: Backbone
    known: KnownAnswers
    adapters: Sequence[Adapter]
    facts: Sequence[Facts]


@cache
def make_setting(*, adapters: int, images: int) -> Setting:
    """Make adapters, every other one with a probe, and measure them where memory has no limit."""
    backbone = make_backbone()
    known = make_known(backbone, count=adapters, images=images)
    given = [
        adapter if number % 2 else adapter.with_probe(backbone, dtype="float32")
        for number, adapter in enumerate(known.adapters)
    ]
    facts, stems = [], []
    engine = Engine(backbone, dtype="float32")
    pair = ("one", "two")
    for adapter in given:
        for task in pair:
            engine.load(task, adapter)
        folded, gates = (tier.bytes // 2 for tier in engine.memory())
        for task in pair:
            engine.evict(task)
        engine.run_mixed(pair, known.images[:2])
        factors = engine.memory()[0].bytes // 2
        stems.append(engine.stem("one"))
        facts.append(
            Facts(
                digest=adapter.digest,
                gates=gates,
                folded=folded,
                factors=factors if factors < folded else 0,
                stem=stems.index(stems[-1]),
                probed=adapter.probe is not None,
                sound=True,
            )
        )
    liar = replace(given[0], config=replace(given[0].config, probe=given[2].probe))
    return Setting(
        backbone=backbone,
        known=known,
        adapters=[*given, liar],
        facts=[*facts, replace(facts[0], sound=False)],
    )
