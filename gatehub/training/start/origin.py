"""An adapter that a run goes on from: new images of its classes, or new classes beside them.

Its gates, normalisation values and head rows are where the run starts, its labels keep their order,
and the form of it all (kind of gates, norm mode, first stage, how images are prepared) stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gatehub._arguments import check_argument
from gatehub._places import find_folder
from gatehub._text import quote
from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.backbone.images import ImageRules
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import TrainingError
from gatehub.gates.attach import GatedModel, attach_gates
from gatehub.gates.fold import check_backbone
from gatehub.gates.policy import read_policy
from gatehub.training.data import ImageData
from gatehub.training.methods.learner import Learner
from gatehub.training.sources.pictures import spell_label
from gatehub.training.start.head_inputs import find_logit_layers

# What fields of a preprocessing are to who asks for them.
_OPTIONS = {"image_rules": "background"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What a task trains on a backbone, beside its head; see `attach_gates`.

    Args:
        gates: kind of the gates.
        norm: which normalisation values.
        start: first gated stage, or None.
        shift: whether gated layers have a shift.
    """

    gates: str
    norm: str
    start: str | None
    shift: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """An adapter to go on from.

    Args:
        adapter: it stays as it is.
        name: its folder or its name on a hub, as it was given.
    """

    adapter: Adapter
    name: str

    def extend_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the adapter's labels in their order, and behind them those that it lacks."""
        known = {spell_label(label) for label in self.adapter.labels}
        return (*self.adapter.labels, *(label for label in labels if label not in known))

    def take_up(self, data: ImageData) -> ImageData:
        """Return data with the labels of a run that goes on from the adapter."""
        return data.with_labels(self.extend_labels(data.labels))

    def recorded(self) -> dict[str, str]:
        """Return what a new adapter remembers of this one."""
        return {"init_from": self.name, "init_digest": self.adapter.digest}

    def check_problem(self, *, multi_label: bool) -> None:
        """Refuse to train for several labels an image where the adapter has one, and the reverse.

        Raises:
            TrainingError: it is so.
        """
        if self.adapter.problem.is_multi_label == multi_label:
            return
        has, asked, hint = (
            ("one label", "any number of them is", "Leave --multi-label (multi_label) out")
            if multi_label
            else ("any number of labels", "one is", "Add --multi-label (multi_label=True)")
        )
        raise TrainingError(
            f"'{self.name}' gives an image {has}, and {asked} asked for; a run that goes on from "
            "an adapter keeps its form.",
            hint=f"{hint}, or train a new adapter without init_from.",
        )

    def keep_thresholds(
        self, thresholds: Sequence[float], unknown: Collection[int]
    ) -> tuple[float, ...]:
        """Return thresholds with the adapter's own for the labels of which nothing was known.

        Args:
            thresholds: one for each label.
            unknown: see `Examples`.
        """
        own = self.adapter.problem.thresholds or ()
        return tuple(
            own[place] if place in unknown else found for place, found in enumerate(thresholds)
        )

    def check_backbone(self, backbone: Backbone) -> None:
        """Refuse a backbone that the adapter was not trained on.

        Raises:
            BackboneMismatchError: the digests differ.
        """
        check_backbone(backbone, self.adapter)

    def check_preprocessing(self, preprocessing: Preprocessing | None) -> None:
        """Refuse to prepare images in another way than the adapter does; None asks for none.

        Raises:
            TrainingError: a field differs.
        """
        if preprocessing is None:
            return
        theirs = self.adapter.preprocessing
        for field in fields(theirs):
            before, now = (getattr(each, field.name) for each in (theirs, preprocessing))
            if before != now:
                show = _show_size if field.name == "input_size" else _show
                name = _OPTIONS.get(field.name, field.name)
                raise _contradict(self, name, before, now, show=show)

    def attach(self, backbone: Backbone, labels: Sequence[str]) -> GatedModel:
        """Return a gated model with the adapter's values; the head's rows for new labels are new.

        Args:
            backbone: the one that the adapter was trained on.
            labels: from `extend_labels`.

        Raises:
            BackboneMismatchError: the backbone's digest is not the adapter's.
            TrainingError: the adapter's tensors are not those that a training makes here.
        """
        adapter = self.adapter
        self.check_backbone(backbone)
        model = attach_model(backbone, labels, choose_form(self, gates=None, norm=None, start=None))
        model.preprocessing = adapter.preprocessing
        own = model.task_tensors()
        for name in sorted(own.keys() ^ adapter.tensors.keys()):
            where = "lacks" if name in own else "has"
            raise self._refuse(f"it {where} '{name}'")
        added = len(labels) - len(adapter.labels)
        heads = model.head_parameters().keys()
        with torch.no_grad():
            for name, tensor in own.items():
                given = adapter.tensors[name]
                place = _find_rows(tensor, given, added) if name in heads else tensor
                if place is None or place.shape != given.shape:
                    shapes = f"{tuple(given.shape)} where a new one has {tuple(tensor.shape)}"
                    raise self._refuse(f"its '{name}' has the shape {shapes}")
                place.copy_(given)
        return model

    def _refuse(self, why: str) -> TrainingError:
        return TrainingError(
            f"No run can go on from '{self.name}': {why}, unlike an adapter that is trained on "
            "this backbone with its settings.",
            hint="Train a new adapter.",
        )


def open_origin(place: str | Path | Adapter | Origin) -> Origin:
    """Read the adapter that a run is to go on from.

    Args:
        place: its folder, or as a string its name on a hub; or the adapter itself, or what this
            function returned.

    Raises:
        AdapterFormatError: it is not sound.
        HubError: it is not a folder here, and the hub cannot give it.
        TrainingError: something else was given.
    """
    if isinstance(place, Origin):
        return place
    if isinstance(place, Adapter):
        return Origin(adapter=place, name=place.task)
    kind = str | Path | Adapter
    check_argument(place, kind, "init_from", where="train_adapter()", error=TrainingError)
    return Origin(adapter=Adapter.load(find_folder(place)), name=str(place))


def choose_form(
    origin: Origin | None,
    *,
    gates: str | None,
    norm: str | None,
    start: str | None,
    shift: bool = False,
) -> Form:
    """Return the form of a task: what is asked for, else the origin's, else the defaults.

    Raises:
        TrainingError: what is asked for is not the origin's.
    """
    if origin is None:
        return Form(gates=gates or "auto", norm=norm or "affine", start=start, shift=shift)
    layout = origin.adapter.layout
    if gates is not None and read_policy(gates) != read_policy(layout.policy):
        raise _contradict(origin, "gates", layout.policy, gates)
    if norm is not None and norm != layout.norm:
        raise _contradict(origin, "norm", layout.norm, norm)
    if start is not None and start != layout.start:
        raise _contradict(origin, "start", layout.start, start)
    if shift and not layout.has_shift:
        raise _contradict(origin, "shift", None, shift)
    return Form(gates=layout.policy, norm=layout.norm, start=layout.start, shift=layout.has_shift)


def attach_model(
    backbone: Backbone, labels: Sequence[str], form: Form, origin: Origin | None = None
) -> GatedModel:
    """Return a gated model for a run: new, or with the values of its origin.

    The arguments and errors are those of `attach_gates` and `Origin.attach`.
    """
    if origin is not None:
        return origin.attach(backbone, labels)
    return attach_gates(
        backbone,
        labels=labels,
        gates=form.gates,
        norm=form.norm,
        start=form.start,
        shift=form.shift,
    )


def hold_rows(model: Learner, places: Collection[int]) -> None:
    """Keep the rows of labels as they are: no gradient reaches them, of the penalty either.

    Args:
        model: that is about to be trained.
        places: of labels of which the images to train on say nothing.
    """

    def silence(gradient: Tensor) -> Tensor:
        return gradient.index_fill(0, torch.tensor(sorted(places), device=gradient.device), 0)

    for layer in find_logit_layers(model).values() if places else ():
        layer.weight.register_hook(silence)
        if layer.bias is not None:
            layer.bias.register_hook(silence)


def count_known(origin: Origin | None) -> int:
    """Return how many of a run's labels, the first ones, are learned already."""
    return 0 if origin is None else len(origin.adapter.labels)


def _find_rows(tensor: Tensor, given: Tensor, added: int) -> Tensor | None:
    """Return the part of a head's tensor in which an old one goes: all, or all but new rows."""
    if tensor.shape == given.shape:
        return tensor
    return tensor[:-added] if added and tensor.ndim else None


def _contradict(
    origin: Origin, what: str, before: Any, now: Any, *, show: Callable[[Any], str] | None = None
) -> TrainingError:
    show = show or _show
    has = f"no {what}" if before is None else f"{what} {show(before)}"
    return TrainingError(
        f"'{origin.name}' has {has}, and {what} {show(now)} is asked for; a run that goes on from "
        "an adapter keeps its form.",
        hint=f"Leave {what} out, or train a new adapter without init_from.",
    )


def _show_size(size: tuple[int, int, int]) -> str:
    """Write an input size as the option takes it, where it can."""
    _, height, width = size
    return str(height) if height == width else f"{height} x {width}"


def _show(value: object) -> str:
    if isinstance(value, ImageRules):
        return "#" + "".join(f"{part:02x}" for part in value.background)
    return quote(str(value), 80)
