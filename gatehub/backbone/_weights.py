"""Finding a backbone's weights: safetensors only, on the Hub, in a folder or in a file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gatehub._file_kinds import advise_pull, describe_pointer, is_pointer
from gatehub._pickles import is_pickle
from gatehub._text import first_line, quote
from gatehub.backbone._download import fetch_file, find_pickle
from gatehub.errors import BackboneError, BackboneNotFoundError, UnsafeWeightsError

SAFETENSORS_NAME, CONFIG_NAME = "model.safetensors", "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A folder that holds config.json and the weights as safetensors."""

    folder: Path
    file: Path
    revision: str | None


def check_name(name: str) -> None:
    """Refuse a name that timm does not register, with the nearest ones."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else "See timm.list_models()."
        raise BackboneNotFoundError(f"timm knows no model '{architecture}'.", hint=hint)
    tags = timm.list_pretrained(architecture)
    if name != architecture and name not in tags:
        known = ", ".join(tags) if tags else "none"
        raise BackboneNotFoundError(
            f"timm knows no weights '{tag}' for {architecture}.", hint=f"It knows: {known}."
        )


def resolve_file(path: str | Path) -> Path:
    """Check that a path names an existing safetensors file, and return it absolute."""
    file = Path(path).absolute()
    if is_pickle(file.name):
        raise UnsafeWeightsError(
            f"{quote(str(path))} is a pickle, which can run code when it is read.",
            hint="Convert it to safetensors where you trust it (safetensors.torch.save_file).",
        )
    if file.suffix != ".safetensors":
        raise BackboneError(
            f"{quote(str(path))} is not a .safetensors file, the only kind that is read.",
            hint="Convert it to safetensors where you trust it (safetensors.torch.save_file).",
        )
    if not file.is_file():
        raise BackboneNotFoundError(f"There is no file {quote(str(path))}.", hint="Check the path.")
    _check_content(file)
    return file


def resolve_folder(name: str) -> Resolved:
    """Find the folder behind "local-dir:PATH" or "hf-hub:ORG/NAME[@REVISION]"."""
    kind, _, place = name.partition(":")
    config = resolve_config(name)
    folder = config.parent
    if kind == "local-dir":
        if not (folder / SAFETENSORS_NAME).is_file():
            raise _no_safetensors(place, sorted(p.name for p in folder.iterdir()))
        _check_content(folder / SAFETENSORS_NAME)
        return Resolved(folder=folder, file=folder / SAFETENSORS_NAME, revision=None)
    # A branch may move between two requests; both files are to be of one commit.
    file = _fetch_weights(place.partition("@")[0], SAFETENSORS_NAME, folder.name)
    return Resolved(folder=file.parent, file=file, revision=folder.name)


def resolve_config(name: str) -> Path:
    """Find the config.json of "local-dir:PATH" or "hf-hub:ORG/NAME[@REVISION]"."""
    kind, _, place = name.partition(":")
    if kind == "hf-hub":
        repository, _, revision = place.partition("@")
        fetched = fetch_file(repository, "config.json", revision or None)
        if fetched is None:
            raise BackboneNotFoundError(
                f"'{repository}' on the Hub has no config.json, so it is not a timm model."
            )
        return fetched
    config = Path(place).absolute() / "config.json"
    if not config.is_file():
        raise BackboneNotFoundError(
            f"'{place}' has no config.json, so it is not a timm model folder.",
            hint="Save one with save_for_hf(model, folder, safe_serialization=True) of timm.",
        )
    _check_content(config)
    return config


def find_checkpoint(place: str | Path) -> tuple[Path, Path | None]:
    """Find a trained network's safetensors file, and the config.json beside it if there is one.

    Args:
        place: a folder with both, "local-dir:PATH", "hf-hub:ORG/NAME[@REVISION]", or the file.

    Raises:
        BackboneNotFoundError: nothing is there.
        UnsafeWeightsError: there is only a pickle.
        BackboneError: neither a folder nor a safetensors file.
    """
    name = str(place)
    if not name.startswith(("hf-hub:", "local-dir:")):
        if not Path(place).is_dir():
            file = resolve_file(place)
            config = file.parent / CONFIG_NAME
            known = file.name == SAFETENSORS_NAME and config.is_file()
            return file, config if known else None
        name = f"local-dir:{name}"
    resolved = resolve_folder(name)
    return resolved.file, resolved.folder / CONFIG_NAME


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file.

    Raises:
        BackboneError: it is not a valid one.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise _unsound(file, error) from error


def _check_content(file: Path) -> None:
    """Refuse a file of a clone that was made without git-lfs."""
    if is_pointer(file):
        raise BackboneError(describe_pointer(f"'{file}'"), hint=advise_pull(file.parent))


def download(name: str) -> tuple[Path, str | None]:
    """Fetch timm's weights of that name from the Hub: the file and the commit it came from."""
    config = timm.get_pretrained_cfg(name)
    repository = config.hf_hub_id if config is not None else None
    if config is None or not config.has_weights:
        raise BackboneNotFoundError(
            f"timm publishes no pretrained weights for '{name}'.",
            hint="Give weights=PATH, or pretrained=False for random ones.",
        )
    if repository is None:
        raise _no_safetensors(name, [str(config.url).rpartition("/")[2]])
    listed = config.hf_hub_filename or SAFETENSORS_NAME
    # OpenCLIP repositories list the pickle; the same weights lie beside it as safetensors.
    filename = listed.replace("open_clip_pytorch_model.bin", "open_clip_model.safetensors")
    if not filename.endswith(".safetensors"):
        raise _no_safetensors(name, [filename])
    repository, _, revision = repository.partition("@")
    file = _fetch_weights(repository, filename, revision or None)
    return file, file.parent.name


def _fetch_weights(repository: str, filename: str, revision: str | None) -> Path:
    file = fetch_file(repository, filename, revision)
    if file is None:
        raise _no_safetensors(repository, find_pickle(repository, revision))
    return file


def read_arguments(resolved: Resolved) -> dict[str, Any]:
    """Read what a folder's network is built with beside its name."""
    config = json.loads((resolved.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    return dict(config.get("model_args") or {})


def build(resolved: Resolved) -> nn.Module:
    """Create the model that a folder's config.json describes, with the folder's weights."""
    return _create(f"local-dir:{resolved.folder}", resolved.file)


def build_from_file(name: str, file: Path) -> nn.Module:
    """Create a timm model with the weights of a safetensors file."""
    return _create(name, file, classes=_count_classes(name, file))


def _create(name: str, file: Path, *, classes: int | None = None) -> nn.Module:
    # The overlay makes timm read exactly this file, through its own key conversions, where it
    # would otherwise choose among sources, pickles included.
    overlay: dict[str, Any] = {"source": "", "file": str(file), "custom_load": False}
    arguments: dict[str, Any] = {}
    if classes is not None:
        # timm loads strictly only where model and configuration agree on the classes.
        overlay["num_classes"] = arguments["num_classes"] = classes
    try:
        # timm draws weights before it loads them; the caller's random numbers stay as they are.
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = timm.create_model(
                name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments
            )
    except SafetensorError as error:
        raise _unsound(file, error) from error
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise BackboneError(
            f"The weights in '{file}' do not fit {name}: {first_line(error)}",
            hint="Give weights of exactly this architecture.",
        ) from error
    return model


def _count_classes(name: str, file: Path) -> int:
    """Read the classifier's size from the file, so that timm loads every tensor strictly."""
    config = timm.get_pretrained_cfg(name)
    listed = config.classifier if config is not None else None
    names = [listed] if isinstance(listed, str) else list(listed or ())
    try:
        with safe_open(file, framework="pt") as tensors:
            keys = set(tensors.keys())
            for key in (f"{name}.weight" for name in names):
                if key in keys:
                    return int(tensors.get_slice(key).get_shape()[0])
    except (SafetensorError, OSError) as error:
        raise _unsound(file, error) from error
    # A checkpoint in its authors' own key names, which timm converts, keeps timm's class count.
    is_timm_file = bool(keys & set(timm.create_model(name, device="meta").state_dict()))
    return 0 if is_timm_file or config is None else int(config.num_classes)


def _unsound(file: Path, error: Exception) -> BackboneError:
    return BackboneError(
        f"'{file}' is not a valid safetensors file: {first_line(error)}",
        hint="Fetch or save it again.",
    )


def _no_safetensors(name: str, present: Sequence[str]) -> UnsafeWeightsError:
    pickles = [f for f in present if is_pickle(f)]
    found = f"only {', '.join(pickles)}, a pickle, which can run code" if pickles else "none"
    return UnsafeWeightsError(
        f"'{name}' offers no weights as {SAFETENSORS_NAME} (found: {found}).",
        hint="Convert them to safetensors where you trust them, and give weights=PATH.",
    )
