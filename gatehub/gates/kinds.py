"""The forms a gate matrix M can take, and what each costs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gatehub._text import quote
from gatehub.errors import GateKindError

MAX_RANK = 4096

# Every name that a learned tensor of a gate can have in its layer.
GATE_PARTS = frozenset({"gate", "gate_a", "gate_b"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKind:
    """How M: (O, I) is made of learned tensors. Every kind starts at M = 1.

    | name | M | learned tensors |
    |---|---|---|
    | full | free, arXiv 2602.06245 | gate: (O, I) |
    | lowrank | 1 + A Bᵀ | gate_a: (O, R), gate_b: (I, R) |
    | scale | a bᵀ; cf. arXiv 2103.12228 | gate_a: (O,), gate_b: (I,) |

    Args:
        name: "full", "lowrank" or "scale".
        rank: R of "lowrank", 0 otherwise.
    """

    name: str
    rank: int = 0

    def __post_init__(self) -> None:
        low = self.name == "lowrank"
        if self.name not in ("full", "lowrank", "scale") or not (
            1 <= self.rank <= MAX_RANK if low else self.rank == 0
        ):
            raise _unknown_kind(str(self))

    def __str__(self) -> str:
        return f"lowrank:{self.rank}" if self.name == "lowrank" else self.name

    @property
    def rest(self) -> float:
        """The value of the learned tensors at which M = 1, towards which they decay."""
        return 0.0 if self.name == "lowrank" else 1.0

    def shapes(self, out_channels: int, in_channels: int) -> dict[str, tuple[int, ...]]:
        """Return the learned tensors' shapes, by the last part of their name."""
        match self.name:
            case "full":
                return {"gate": (out_channels, in_channels)}
            case "scale":
                return {"gate_a": (out_channels,), "gate_b": (in_channels,)}
        return {"gate_a": (out_channels, self.rank), "gate_b": (in_channels, self.rank)}

    def count(self, out_channels: int, in_channels: int) -> int:
        """Return how many numbers are learned."""
        return sum(math.prod(shape) for shape in self.shapes(out_channels, in_channels).values())

    def initialise(self, out_channels: int, in_channels: int, like: Tensor) -> dict[str, Tensor]:
        """Draw the learned tensors so that M is exactly 1, with dtype and device of `like`."""
        parts = {
            part: torch.full(shape, self.rest, dtype=like.dtype, device=like.device)
            for part, shape in self.shapes(out_channels, in_channels).items()
        }
        if self.name == "lowrank":
            # A = 0 keeps M at 1; B must differ from 0, or neither would ever get a gradient.
            parts["gate_b"].normal_(std=self.rank**-0.5)
        return parts

    def matrix(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return M: (O, I) from the learned tensors."""
        match self.name:
            case "full":
                return parts["gate"]
            case "scale":
                return parts["gate_a"][:, None] * parts["gate_b"]
        return (parts["gate_a"] @ parts["gate_b"].T).add_(1)  # one large tensor less than 1 + …


def parse_kind(text: str) -> GateKind:
    """Read "full", "scale" or "lowrank:R".

    Raises:
        GateKindError: anything else.
    """
    match = re.fullmatch(r"(full|scale)|lowrank:([1-9][0-9]{0,3})", text, re.ASCII)
    if match is None:
        raise _unknown_kind(text)
    if match[1]:
        return GateKind(name=match[1])
    return GateKind(name="lowrank", rank=int(match[2]))


def _unknown_kind(text: str) -> GateKindError:
    return GateKindError(
        f"{quote(text, 80)} is not a gate kind; expected auto, full, lowrank:R (R from 1 to "
        f"{MAX_RANK}), scale or none.",
        hint="'auto' is what most tasks want.",
    )
