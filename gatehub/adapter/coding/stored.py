"""The names of what an adapter's numbers are stored as, such as "float16" or "int8+float16".

The first is that of the gates. With "+float16" the head, and what of normalisation values and
shifts is no running statistic, are float16, too; without it they are float32. Running statistics
are float32 always: a variance is divided by, and may be smaller than float16 resolves.
"""

from __future__ import annotations

from dataclasses import dataclass

from gatehub.adapter.coding.packed import STORED_AS
from gatehub.gates.norms import STATISTICS

HALF = "+float16"
VALUES_AS = ("F32", "F16")


@dataclass(frozen=True, slots=True)
class StoredAs:
    """How an adapter's numbers are stored.

    Args:
        gates: a key of `STORED_AS`.
        values: "F32" or "F16", as safetensors writes it: of all others but running statistics.
    """

    gates: str
    values: str

    def value_dtype(self, name: str) -> str:
        """Return the dtype of a tensor that is no gate, as safetensors writes it."""
        return "F32" if is_statistic(name) else self.values


def parse_stored(text: str) -> StoredAs | None:
    """Read a name; None if it is none."""
    gates = text.removesuffix(HALF)
    if gates not in STORED_AS:
        return None
    return StoredAs(gates, "F32" if gates == text else "F16")


def is_head(name: str) -> bool:
    """Whether a tensor of that name is the head's, and no running statistic."""
    return name.startswith("head.") and not is_statistic(name)


def is_statistic(name: str) -> bool:
    """Whether a tensor of that name is a running statistic."""
    return name.rpartition(".")[2] in STATISTICS


def list_stored() -> str:
    """Return the names for a sentence."""
    return f"{', '.join(sorted(STORED_AS))}, or one of them with {HALF}"
