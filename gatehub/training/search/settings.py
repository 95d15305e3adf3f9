"""`--tune small`: a few settings, one after another, each from the best so far.

Kinds of gates and normalisation first, which decide what can be learned; then the rate of the best
of them, up and down; then where its gates begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from gatehub.gates.policy import AUTO, NONE
from gatehub.training.search.record import Trial, Tried

_KINDS = ((AUTO, "affine"), ("scale", "affine"), (AUTO, "frozen"), (NONE, "affine"))
_NORMS = ("affine", "frozen", "stats")
_RATES = (1 / 3, 3.0)
# Of so many images one more that is right is half a point; of fewer, the best of eight settings is
# the luckiest one.
LEAST_IMAGES = 200
_LEAST_OF_A_CLASS = 5


def suits(images: int, rarest: int) -> bool:
    """Whether validation images can tell settings apart: the rule of `--tune auto`.

    Args:
        images: how many there are.
        rarest: how many there are of the class that has fewest.
    """
    return images >= LEAST_IMAGES and rarest >= _LEAST_OF_A_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSmall:
    """Up to eight runs: kinds and norms, then rates, then starts; see `Search`.

    Args:
        gates: kind of the gates where it is given, else None.
        norm: likewise.
        start: likewise.
        stages: names of the backbone's stages, to choose starts from.
        rates: whether rates are tried, too: none is given.
    """

    gates: str | None
    norm: str | None
    start: str | None
    stages: Sequence[str]
    rates: bool

    @property
    def name(self) -> str:
        return "tune small"

    def settings(self) -> Mapping[str, object]:
        return asdict(self)

    def next_trial(self, tried: Sequence[Tried]) -> Trial | None:
        """Return the first run that is not done, of those that are known so far."""
        known = {one.trial for one in tried}
        for step in (self._kinds, self._rates, self._starts):
            ahead = [trial for trial in step(tried) if trial not in known]
            if ahead:
                return ahead[0]
        return None

    def choose(self, tried: Sequence[Tried]) -> Tried:
        """Return the one with the highest score; of equals the smallest, and then the first."""
        sound = [one for one in tried if not one.diverged]
        return min(sound, key=lambda one: (-one.score, one.adapter_bytes))

    def _kinds(self, tried: Sequence[Tried]) -> Iterator[Trial]:
        pairs = _KINDS if self.gates is None else tuple((self.gates, norm) for norm in _NORMS)
        for gates, norm in pairs:
            if self.norm in (None, norm) and not (gates == NONE and norm == "frozen"):
                yield Trial(gates=gates, norm=norm, start=self.start)
        if self.gates is None and self.norm not in (None, "affine", "frozen"):
            for gates in (AUTO, "scale", NONE):
                yield Trial(gates=gates, norm=self.norm or "", start=self.start)

    def _rates(self, tried: Sequence[Tried]) -> Iterator[Trial]:
        best = self.choose([one for one in tried if one.trial.rate == 1 and self._is_first(one)])
        for rate in _RATES if self.rates else ():
            yield replace(best.trial, rate=rate)

    def _starts(self, tried: Sequence[Tried]) -> Iterator[Trial]:
        best = self.choose([one for one in tried if self._is_first(one)])
        count = len(self.stages)
        for place in (round(count / 3), round(2 * count / 3)) if self.start is None else ():
            if 0 < place < count:
                yield replace(best.trial, start=self.stages[place])

    def _is_first(self, one: Tried) -> bool:
        return one.trial.start == self.start
