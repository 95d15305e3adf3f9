"""A task's classifier: its tensors in a model, and what an adapter calls them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor

from gatehub.backbone.classifier import is_inside

HEAD = "head"


def find_head_places(present: Mapping[str, Tensor], heads: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a classifier's tensors in a model.

    Args:
        present: the model's tensors, by name.
        heads: names of the modules that hold the classifier.
    """
    return tuple(
        name
        for name, tensor in present.items()
        if is_inside(name, heads) and tensor.is_floating_point()
    )


def name_head(
    places: Iterable[str], heads: Sequence[str], *, taken: Collection[str]
) -> dict[str, str]:
    """Name a classifier's tensors: name in an adapter → name in the model.

    One classifier is called "head" in every adapter, whatever timm calls it; of several, each
    keeps its name behind "head.". So does one whose short name is another tensor's: ConvFormer has
    a norm within its classifier `head.fc` and another beside it, `head.norm`.

    Args:
        places: from `find_head_places`.
        heads: names of the modules that hold the classifier.
        taken: names of the task's gates and normalisation values.
    """
    places = tuple(places)
    # A distilled network's second classifier may be left out of a new one.
    used = [head for head in heads if any(is_inside(place, (head,)) for place in places)]
    if len(used) == 1:
        short = {HEAD + place[len(used[0]) :]: place for place in places}
        if short.keys().isdisjoint(taken):
            return short
    named = {f"{HEAD}.{place}": place for place in places}
    while not named.keys().isdisjoint(taken):  # ends, since the names grow
        named = {f"{HEAD}.{name}": place for name, place in named.items()}
    return named
