"""A pretrained timm model, frozen, with an identity that no other weights share."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import Tensor, nn

from gatehub import _weights
from gatehub.errors import BackboneError
from gatehub.preprocessing import Preprocessing

if TYPE_CHECKING:
    from typing_extensions import Self

DEMO_FOLDER = Path(__file__).parent / "demo_backbone"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneIdentity:
    """Which weights a backbone has, and where they came from.

    Args:
        architecture: timm's name without the tag, such as "resnet18".
        tag: timm's name of the weights, such as "a1_in1k", or "".
        source: "timm", "demo", "seed:N", "hf-hub:ORG/NAME", "local-dir:PATH", "file:PATH",
            or "memory" for a model that was handed over as an object.
        revision: commit of a hub repository, or None.
        digest: SHA-256 over everything but the classifier, 64 hexadecimal digits.
    """

    architecture: str
    tag: str
    source: str
    revision: str | None
    digest: str

    @property
    def name(self) -> str:
        """Architecture and tag, as timm writes them."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture

    def __str__(self) -> str:
        return f"{self.name} (digest {self.digest[:12]}…)"


class Backbone(nn.Module):
    """A timm model with every tensor frozen, always in evaluation mode.

    Args:
        model: a timm model. It is taken over: its parameters stop requiring gradients.
        source: where it came from; see `BackboneIdentity`.
        tag: timm's name of the weights, or "" where they have none.
        revision: commit of a hub repository, or None.

    Attributes:
        model: the timm model.
        identity: architecture, tag, source, revision and digest.
        preprocessing: from timm's own configuration.
        head_prefix: name of the module that `reset_classifier` makes anew, such as "fc".

    Raises:
        BackboneError: the model has no classifier that can be replaced, or several.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        source: str = "memory",
        tag: str = "",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.preprocessing = Preprocessing.from_model(model)
        kept, self.head_prefix = _split_classifier(model)
        self.identity = BackboneIdentity(
            architecture=_read_config(model, "architecture") or type(model).__name__,
            tag=tag,
            source=source,
            revision=revision,
            digest=digest_tensors(kept),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as they were loaded; see `digest_tensors`."""
        return self.identity.digest

    def forward(self, images: Tensor) -> Tensor:
        """Answer with the pretrained classifier: (B, 3, H, W) float32 → (B, classes) float32."""
        return cast(Tensor, self.model(images))

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a backbone never learns, and its statistics never move."""
        return super().train(False)


def load_backbone(
    name: str | BackboneIdentity,
    *,
    weights: str | Path | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> Backbone:
    """Load a timm model and freeze it.

    Args:
        name: any timm name, with or without a tag ("resnet18.a1_in1k"); "hf-hub:ORG/NAME" or
            "hf-hub:ORG/NAME@REVISION"; "local-dir:PATH"; or "demo", which ships with gatehub.
            Or an adapter's `backbone`, to load from where that came; its digest is compared
            where the adapter is used.
        weights: a safetensors file to read the weights from, for a timm name. A classifier of
            any size, or none, may lie in it.
        pretrained: False draws random weights from `seed`.
        seed: for `pretrained=False`.

    Raises:
        BackboneNotFoundError: no such name, tag, file, folder or repository.
        UnsafeWeightsError: the weights are offered only as a pickle.
        BackboneError: the weights do not fit the architecture.
    """
    if isinstance(name, BackboneIdentity):
        return _reload(name)
    if name == "demo":
        folder = _weights.resolve_folder(f"local-dir:{DEMO_FOLDER}")
        return Backbone(_weights.build(folder), source="demo")
    if name.startswith(("hf-hub:", "local-dir:")):
        if weights is not None or not pretrained:
            raise BackboneError(
                f"'{name}' brings its own weights, but weights={weights} "
                f"pretrained={pretrained} were asked for too.",
                hint="Leave both out, or give a timm name instead.",
            )
        resolved = _weights.resolve_folder(name)
        source = name.partition("@")[0] if resolved.revision else f"local-dir:{resolved.folder}"
        model = _weights.build(resolved)
        return Backbone(
            model, source=source, tag=_read_config(model, "tag"), revision=resolved.revision
        )
    _weights.check_name(name)
    tag = name.partition(".")[2]
    if weights is not None:
        file = _weights.resolve_file(weights)
        return Backbone(_weights.build_from_file(name, file), source=f"file:{file}", tag=tag)
    if pretrained:
        file, revision = _weights.download(name)
        model = _weights.build_from_file(name, file)
        return Backbone(model, source="timm", tag=_read_config(model, "tag"), revision=revision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False)
    return Backbone(model, source=f"seed:{seed}", tag=tag)


def _reload(identity: BackboneIdentity) -> Backbone:
    """Load the backbone that an identity names, from where it came.

    The digest is not compared here: whoever needs these very weights compares it.
    """
    kind, _, place = identity.source.partition(":")
    match kind:
        case "timm":
            return load_backbone(identity.name)
        case "demo":
            return load_backbone("demo")
        case "seed" if place.isdecimal():
            return load_backbone(identity.name, pretrained=False, seed=int(place))
        case "file":
            return load_backbone(identity.name, weights=place)
        case "local-dir":
            return load_backbone(identity.source)
        case "hf-hub":
            return load_backbone(f"{identity.source}@{identity.revision}")
    raise BackboneError(
        f"Backbone {identity} has source '{identity.source}', from which it cannot be loaded.",
        hint="Name the backbone yourself (--backbone, or load_backbone).",
    )


def copy_structure(model: nn.Module) -> nn.Module:
    """Copy a model's modules and share its tensors: new structure, no new weights."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, cast(dict[int, Any], shared))


def replace_classifier(model: nn.Module, classes: int) -> None:
    """Give a timm model a new classifier, in place, with freshly drawn weights.

    Raises:
        BackboneError: the model has no `reset_classifier`.
    """
    reset = getattr(model, "reset_classifier", None)
    if reset is None:
        raise BackboneError(
            f"{type(model).__name__} has no classifier that can be replaced "
            "(timm's reset_classifier).",
            hint="Give a timm image classification model.",
        )
    device, dtype = _placement(model)
    known = {id(t): t for t in model.parameters()}
    reset(classes)
    # Everything else may be shared with a backbone, so only the fresh layers are moved.
    for module in model.modules():
        if any(id(t) not in known for t in module.parameters(recurse=False)):
            module.to(device=device, dtype=dtype)


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over sorted names, dtypes, shapes and bytes, as 64 hexadecimal digits.

    Each tensor adds one line "NAME DTYPE [D0, D1]" and then its little-endian bytes in C order.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split_classifier(model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Return what survives a new classifier, and the name of the module it lies in.

    Found by replacing it on a structural copy: timm names classifiers in many ways, and some
    hold more than one layer.
    """
    probe = copy_structure(model)
    before = model.state_dict(keep_vars=True)
    with torch.random.fork_rng(devices=[]):
        replace_classifier(probe, 2)
    after = probe.state_dict(keep_vars=True)
    surviving = {id(t) for t in after.values()}
    known = {id(t) for t in before.values()}
    modules = [name.split(".")[:-1] for name, t in after.items() if id(t) not in known]
    if not modules:
        raise BackboneError(f"{type(model).__name__} has no classifier to replace.")
    common = []
    for parts in zip(*modules, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    if not common:
        places = ", ".join(sorted({".".join(parts) for parts in modules}))
        raise BackboneError(
            f"{type(model).__name__} has several classifiers ({places}); expected one.",
            hint="Choose a model with one classifier.",
        )
    kept = {name: t for name, t in before.items() if id(t) in surviving}
    return kept, ".".join(common)


def _read_config(model: nn.Module, key: str) -> str:
    config = cast(Mapping[str, Any], getattr(model, "pretrained_cfg", None) or {})
    return str(config.get(key) or "")


def _placement(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next(model.parameters())
    return first.device, first.dtype
