"""A network that was trained for a task, as it lies in a file or a folder of timm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatehub._text import first_line, quote, shorten
from gatehub.adapter.folder import INFO_FILE, is_adapter
from gatehub.adapter.names import check_task_name
from gatehub.backbone import Backbone, find_checkpoint, load_backbone, read_weights
from gatehub.backbone.classifier import is_inside
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import GatehubError, TrainingError
from gatehub.problem import ONE_LABEL, Problem
from gatehub.training.methods.network import describe_network, draw_network
from gatehub.training.methods.network_files import read_json, read_pictures

_UPDATES_FILE = "adapter_config.json"  # PEFT's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedNetwork:
    """What a file or a folder says of a task's network.

    Args:
        place: where it lies, as it was given.
        file: its safetensors file.
        task: its name.
        labels: class names, in the order of the logits.
        problem: how its logits are read.
        training: what it remembers of its training, as an adapter's config does; empty where
            another program trained it.
        architecture: timm's name of it; None in a file alone.
        pictures: fields of `Preprocessing` that it says; of a backbone the others.
    """

    place: str
    file: Path
    task: str
    labels: tuple[str, ...]
    problem: Problem
    training: Mapping[str, Any]
    architecture: str | None
    pictures: Mapping[str, Any]

    def preprocess(self, preprocessing: Preprocessing) -> Preprocessing:
        """Return how its images become tensors; what it does not say is as it is given.

        Raises:
            TrainingError: it says what cannot be.
        """
        try:
            return replace(preprocessing, **self.pictures)
        except (GatehubError, TypeError) as error:
            raise TrainingError(
                f"{quote(self.place)} says of its images what cannot be: {first_line(error)}",
                hint="Mend its config.json.",
            ) from error

    def load(self, device: torch.device | str = "cpu") -> LoadedNetwork:
        """Build it as timm does, with its own classifier, for a network that lies in a folder.

        Raises:
            BackboneError: timm does not know it, or its weights do not fit.
            TrainingError: it answers with other than its labels.
        """
        made = load_backbone(self.file.parent)
        preprocessing = self.preprocess(made.preprocessing)
        with torch.inference_mode():
            like = next(made.parameters())
            found = made(torch.zeros(1, *preprocessing.input_size, dtype=like.dtype)).shape[-1]
        if found != len(self.labels):
            raise TrainingError(
                f"{quote(self.place)} answers with {found} logits, and {len(self.labels)} labels "
                "are named.",
                hint="Name as many in its config.json (label_names).",
            )
        return LoadedNetwork(
            task=self.task,
            labels=self.labels,
            problem=self.problem,
            preprocessing=preprocessing,
            training=self.training,
            model=made.to(device).model,
        )

    def build_on(self, backbone: Backbone) -> nn.Module:
        """Build it as a network of a backbone's architecture, frozen, in evaluation mode.

        Args:
            backbone: it stays as it is.

        Raises:
            TrainingError: it is of another architecture, has other weights than such a network, or
                another number of labels.
        """
        own, name = backbone.identity.architecture, backbone.identity.name
        if self.architecture not in (None, own):
            raise TrainingError(
                f"{quote(self.place)} is a {quote(str(self.architecture), 80)}, and the backbone "
                f"{name} is a {own}.",
                hint="Name the backbone from which it was fine-tuned (--backbone).",
            )
        weights = read_weights(self.file)
        config = describe_network(backbone, self.labels, self.preprocess(backbone.preprocessing))
        net = draw_network(backbone, config, seed=0)
        self._check_weights(net.state_dict(), weights, backbone)
        net.load_state_dict(weights)
        return net.eval().requires_grad_(False)

    def _check_weights(
        self, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], backbone: Backbone
    ) -> None:
        where, name = quote(self.place), backbone.identity.name
        hint = (
            f"Give a checkpoint that was fine-tuned from {name}, saved as timm names its tensors."
        )
        for missing in expected.keys() - weights.keys():
            raise TrainingError(
                f"{where} lacks '{missing}', which a network of {name} has "
                f"({len(expected.keys() - weights.keys())} such).",
                hint=hint,
            )
        for other in sorted(weights.keys() - expected.keys()):
            raise TrainingError(
                f"{where} has {quote(other, 80)}, which no network of {name} has "
                f"({len(weights.keys() - expected.keys())} such).",
                hint=hint,
            )
        # A trunk of another width has a head of another width, too.
        for key, tensor in sorted(weights.items(), key=lambda i: is_inside(i[0], backbone.heads)):
            found, needed = tuple(tensor.shape), tuple(expected[key].shape)
            if found != needed and is_inside(key, backbone.heads) and found[1:] == needed[1:]:
                raise TrainingError(
                    f"{where} answers with {found[0]} logits ('{key}'), and {len(self.labels)} "
                    "labels are named.",
                    hint="Name as many, one a line (--labels FILE).",
                )
            if found != needed:
                raise TrainingError(
                    f"{where} has '{key}' of shape {found}, where {name} has {needed}.", hint=hint
                )
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise TrainingError(
                    f"{where} has NaN or infinity in '{key}'.",
                    hint="Take a checkpoint from before its training diverged.",
                )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedNetwork:
    """A task's network, ready to answer; see `TrainedNetwork`.

    Args:
        task: its name.
        labels: class names, in the order of the logits.
        problem: how its logits are read.
        preprocessing: how images become tensors.
        training: what it remembers of its training.
        model: frozen, in evaluation mode: (B, 3, H, W) → (B, labels).
    """

    task: str
    labels: tuple[str, ...]
    problem: Problem
    preprocessing: Preprocessing
    training: Mapping[str, Any]
    model: nn.Module


def is_network(place: str | Path) -> bool:
    """Whether a folder holds a task's network, and no adapter: by what lies in it."""
    folder = Path(place)
    files = ("config.json", "model.safetensors")
    return all((folder / name).is_file() for name in files) and not is_adapter(folder)


def read_network(
    place: str | Path, *, labels: Sequence[str] | None = None, task: str | None = None
) -> TrainedNetwork:
    """Read what a file or a folder says of a task's network; its weights are not read yet.

    Args:
        place: a safetensors file, a folder as timm's `save_for_hf` and `gatehub train --method
            finetune` write it, or "hf-hub:ORG/NAME[@REVISION]".
        labels: class names, in the order of the logits; None for those that it names.
        task: its name; None for the one that it says, or that of the folder or file.

    Raises:
        TrainingError: it names no labels, or is something else.
        BackboneError: there is none, or only a pickle.
        UnsafeNameError: a name that no task can have.
    """
    _refuse_others(place)
    file, config_file = find_checkpoint(place)
    config = {} if config_file is None else read_json(config_file)
    info_file = file.parent / INFO_FILE
    info = read_json(info_file) if config_file is not None and info_file.is_file() else {}
    named = labels or info.get("labels") or config.get("label_names")
    if isinstance(named, str) or not isinstance(named, Sequence) or not named:
        raise TrainingError(
            f"{quote(str(place))} does not name the labels of its logits.",
            hint="Write them into a file, one a line in the order of the logits (--labels FILE).",
        )
    if not all(isinstance(label, str) and label for label in named):
        raise TrainingError(
            f"{quote(str(place))} names labels that are no text: {shorten(repr(list(named)), 80)}."
        )
    described = info.get("preprocessing") or config.get("pretrained_cfg") or {}
    thresholds = info.get("thresholds")
    named_task = task or info.get("task") or _name_place(place, file)
    check_task_name(named_task)
    return TrainedNetwork(
        place=str(place),
        file=file,
        task=named_task,
        labels=tuple(named),
        problem=ONE_LABEL if thresholds is None else Problem(thresholds=tuple(thresholds)),
        training=info.get("training") or {},
        architecture=config.get("architecture"),
        pictures=read_pictures(described, rules=info.get("preprocessing") is not None),
    )


def _refuse_others(place: str | Path) -> None:
    folder = Path(place)
    if is_adapter(folder):
        raise TrainingError(
            f"{quote(str(place))} is an adapter, and no network of a task's own.",
            hint="Adapters hold gates already.",
        )
    if (folder / _UPDATES_FILE).is_file() and not (folder / "model.safetensors").is_file():
        raise TrainingError(
            f"{quote(str(place))} holds low-rank updates of PEFT's, and no whole network.",
            hint="Merge them into their network with PEFT (merge_and_unload), and save that with "
            "timm's save_for_hf(model, folder, safe_serialization=True).",
        )


def _name_place(place: str | Path, file: Path) -> str:
    if str(place).startswith("hf-hub:"):
        return str(place).partition("@")[0].rpartition("/")[2]
    return file.parent.name if file.name == "model.safetensors" else file.stem
