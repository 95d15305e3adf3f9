"""A task's own network of the backbone's architecture, and how timm builds it again."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.models._hub import save_config_for_hf  # the public save_for_hf writes weights, too
from torch import Tensor, nn

from gatehub._text import first_line
from gatehub.backbone import Backbone
from gatehub.backbone.classifier import is_inside, replace_classifier
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.structure import copy_structure
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import TrainingError

CONFIG_FILE = "config.json"


def describe_network(
    backbone: Backbone, labels: Sequence[str], preprocessing: Preprocessing
) -> bytes:
    """Return config.json of the backbone's network with a classifier for other labels, as timm's.

    Args:
        backbone: it stays as it is.
        labels: class names, in the order of the logits.
        preprocessing: how files become tensors.

    Raises:
        TrainingError: timm did not build it, or knows no way to write down how.
    """
    model = copy_structure(backbone.model)
    with torch.random.fork_rng(devices=[]):
        replace_classifier(model, len(labels))
    described = cast(Any, model)
    described.pretrained_cfg = {
        **copy.deepcopy(dict(getattr(model, "pretrained_cfg", None) or {})),
        "input_size": preprocessing.input_size,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        **dict.fromkeys(("tag", "label_names", "label_descriptions")),  # the backbone's own
    }
    try:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / CONFIG_FILE
            save_config_for_hf(
                model,
                str(path),
                model_config={"label_names": list(labels)},
                model_args=backbone.arguments,
            )
            return path.read_bytes()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _cannot_build(backbone, first_line(error) or type(error).__name__) from error


@pin_settings()
def draw_network(backbone: Backbone, config: bytes, *, seed: int) -> nn.Module:
    """Return the network that a configuration describes, its weights drawn anew.

    Args:
        backbone: of whose architecture it is.
        config: from `describe_network`.
        seed: decides the weights.

    Raises:
        TrainingError: timm builds another network from it.
    """
    try:
        with tempfile.TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
            (Path(name) / CONFIG_FILE).write_bytes(config)
            torch.manual_seed(seed)
            model: nn.Module = timm.create_model(f"local-dir:{name}", pretrained=False)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _cannot_build(backbone, first_line(error)) from error
    there = {name: tensor.shape for name, tensor in backbone.model.state_dict().items()}
    for name, tensor in model.state_dict().items():
        if not is_inside(name, backbone.heads) and there.get(name) != tensor.shape:
            raise _cannot_build(backbone, f"timm would build another one, with another '{name}'")
    reference = next(backbone.model.parameters())
    return model.to(reference)


@torch.no_grad()
def copy_weights(backbone: Backbone, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network weights by name, in place; of its head the rows that there are.

    Args:
        backbone: of whose architecture it is.
        model: from `draw_network`.
        weights: of a network of the same architecture, with no more labels.

    Raises:
        TrainingError: a weight has no place in the network.
    """
    own = model.state_dict()
    for name, given in weights.items():
        place = own.get(name)
        if place is not None and is_inside(name, backbone.heads) and place.ndim:
            place = place[: len(given)]
        if place is None or place.shape != given.shape:
            raise TrainingError(
                f"'{name}' of the folded adapter has no place in timm's own "
                f"{backbone.identity.architecture}, so no network can go on from there.",
                hint="Train it without init_from; or go on with method 'gates'.",
            )
        place.copy_(given)


def read_labels(config: bytes) -> list[str]:
    """Return the labels that a configuration names."""
    return list(json.loads(config)["label_names"])


def _cannot_build(backbone: Backbone, why: str) -> TrainingError:
    return TrainingError(
        f"timm cannot build {backbone.identity.name} again from its configuration ({why}), so no "
        "whole network of it can be trained and saved.",
        hint="Load the backbone by timm's name, or from a folder with timm's config.json.",
    )
