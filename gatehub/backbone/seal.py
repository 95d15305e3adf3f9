"""Whether tensors still hold what they held: a checksum, for every time they are used."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from gatehub.backbone.identity import BackboneIdentity
from gatehub.errors import GateError


class Seal:
    """Remembers dtype, shape and a checksum of some tensors, on any device.

    It is for mistakes, not for attacks: a digest takes two to five times as long. It sees what
    counters of changes do not, such as writing through `.data` or through a NumPy array.

    Args:
        tensors: by name; they are read, and not kept.
        rounded_to: the dtype that some of them were rounded to; in another one they are not what
            they were, though no value has changed since.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], *, rounded_to: torch.dtype | None = None
    ) -> None:
        self._known = _describe(tensors)
        self._rounded_to = rounded_to

    @property
    def rounded_to(self) -> torch.dtype | None:
        """The dtype to which casts have rounded some of the tensors, or None."""
        return self._rounded_to

    def follow(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Seal:
        """Return the seal for what a move or a cast has made of tensors.

        Args:
            before: the tensors that are sealed.
            after: what has their place now. A cast may round them. Whatever else changes their
                values, such as `to_empty`, breaks the seal.
        """
        rounded_to = self._rounded_to
        for name, tensor in after.items():
            if not _is_same(before[name], tensor):
                if tensor.dtype == before[name].dtype:
                    return self
                rounded_to = tensor.dtype
        return Seal(after, rounded_to=rounded_to)

    def find_changed(self, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Return the names of tensors that differ, are missing or are new.

        Args:
            tensors: what has the place of those that were sealed, by name.
        """
        found = _describe(tensors)
        names = self._known.keys() | found.keys()
        return tuple(
            sorted(
                name
                for name in names
                if self._known.get(name) != found.get(name) or self._is_widened(tensors[name])
            )
        )

    def _is_widened(self, tensor: Tensor) -> bool:
        return (
            self._rounded_to is not None
            and tensor.is_floating_point()
            and tensor.dtype != self._rounded_to
        )


def _describe(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size, int]]:
    return {name: (t.dtype, t.shape, _sum_bytes(t)) for name, t in tensors.items()}


def _is_same(before: Tensor, after: Tensor) -> bool:
    """Whether two tensors hold the same values, whatever their dtypes and devices."""
    wide = torch.promote_types(before.dtype, after.dtype)
    return before.shape == after.shape and _sum_bytes(before.to(wide)) == _sum_bytes(after.to(wide))


def _sum_bytes(tensor: Tensor) -> int:
    values = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(values.view(torch.uint8).numpy().data)


def refuse_rounded(
    identity: BackboneIdentity, rounded_to: torch.dtype | None, *, hint: str
) -> None:
    """Refuse to make an adapter on other weights than those whose digest it would carry.

    Args:
        identity: of the backbone.
        rounded_to: the dtype to which a cast has rounded its weights, or None.
        hint: what to do instead.

    Raises:
        GateError: a cast has rounded them.
    """
    if rounded_to is not None:
        raise GateError(
            f"A cast has rounded the weights of {identity} to {str(rounded_to)[6:]}, so an adapter "
            "made on them would carry the digest of other weights.",
            hint=hint,
        )
