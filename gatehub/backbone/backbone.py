"""A pretrained timm model, frozen, with an identity that no other weights share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from torch import Tensor, nn

from gatehub._arguments import checked
from gatehub.backbone import _weights
from gatehub.backbone.blueprint import Blueprint
from gatehub.backbone.classifier import split_classifier
from gatehub.backbone.identity import BackboneIdentity, digest_tensors
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.seal import Seal
from gatehub.backbone.structure import refuse_unusable
from gatehub.backbone.torch_settings import pin_settings
from gatehub.errors import BackboneChangedError, BackboneError

if TYPE_CHECKING:
    from typing_extensions import Self

DEMO_FOLDER = Path(__file__).parents[1] / "demo_backbone"


class Backbone(nn.Module):
    """A timm model with every tensor frozen, always in evaluation mode.

    Args:
        model: a timm model. It is taken over: its parameters stop requiring gradients.
        source: where it came from; see `BackboneIdentity`.
        tag: timm's name of the weights, or "" where they have none.
        revision: commit of a hub repository, or None.
        arguments: what timm built it with beside its name; None for nothing.

    Attributes:
        model: the timm model.
        identity: architecture, tag, source, revision and digest.
        preprocessing: from timm's own configuration.
        arguments: as given.
        heads: names of the modules that `reset_classifier` makes anew or leaves out, such as
            ("fc",); two in networks that were distilled, such as ("head", "head_dist").

    Raises:
        BackboneError: the model has no classifier that can be replaced, was compiled or scripted,
            has weights without values, or recomputes them in every pass (weight norm, spectral
            norm, pruning).
    """

    @checked(BackboneError)
    @pin_settings()
    def __init__(
        self,
        model: nn.Module,
        *,
        source: str = "memory",
        tag: str = "",
        revision: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        refuse_unusable(model)
        self.arguments = dict(arguments or {})
        self.model = model.eval().requires_grad_(False)
        self.preprocessing = Preprocessing.from_model(model)
        self.heads, kept = split_classifier(model)
        self.identity = BackboneIdentity(
            architecture=_read_config(model, "architecture") or type(model).__name__,
            tag=tag,
            source=source,
            revision=revision,
            digest=digest_tensors(kept),
        )
        self._names = frozenset(kept)
        self._seal = Seal(kept)
        self._blueprint = Blueprint(model, exclude=self.heads)
        self.train(False)

    @property
    def digest(self) -> str:
        """SHA-256 of the weights as they were loaded; see `digest_tensors`."""
        return self.identity.digest

    @property
    def rounded_to(self) -> torch.dtype | None:
        """The dtype to which casts have rounded weights since they were loaded, or None."""
        return self._seal.rounded_to

    def forward(self, images: Tensor) -> Tensor:
        """Answer with the pretrained classifier: (B, 3, H, W) float32 → (B, classes) float32."""
        return cast(Tensor, self.model(images))

    def check_unchanged(self) -> None:
        """Refuse to go on with other weights, layers, settings or hooks than were loaded.

        Every weight is read: 20 ms for a ResNet-18. Moving or casting the backbone itself
        (`backbone.to(...)`, `backbone.half()`) is no such change, but a cast that rounds cannot be
        taken back: `backbone.half().float()` has other weights. Nor is gradient checkpointing one.

        Raises:
            BackboneChangedError: the backbone has changed since it was loaded.
        """
        changed = self._seal.find_changed(self._sealed())
        if changed:
            others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise BackboneChangedError(
                f"The weights of {self.identity} have changed since it was loaded: "
                f"'{changed[0]}'{others}; they are not the ones that its digest names any more.",
                hint="Load it again; or make a Backbone of the changed model, which gets a digest "
                "of its own. To cast a backbone, cast the Backbone and not its model.",
            )
        if (change := self._blueprint.find_change(self.model)) is not None:
            raise BackboneChangedError(
                f"The network of {self.identity} has changed since it was loaded: {change}. "
                "It answers otherwise than what the digest names.",
                hint="Set it back, or load it again. A network that is to differ is changed before "
                "a Backbone is made of it, and serves the adapters that are trained on it.",
            )

    def _sealed(self) -> dict[str, Tensor]:
        return {n: t for n, t in self.model.state_dict().items() if n in self._names}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast every tensor, on purpose; what changed before is still told."""
        before = self._sealed()
        unchanged = not self._seal.find_changed(before)
        applied: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if unchanged:
            self._seal = self._seal.follow(before, self._sealed())
        return applied

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: a backbone never learns, and its statistics never move."""
        return super().train(False)


@checked(BackboneError)
@pin_settings()
def load_backbone(
    name: str | Path | BackboneIdentity,
    *,
    weights: str | Path | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> Backbone:
    """Load a timm model and freeze it: on the CPU, in the dtype of its weights' file.

    Args:
        name: any timm name, with or without a tag ("resnet18.a1_in1k"); "hf-hub:ORG/NAME" or
            "hf-hub:ORG/NAME@REVISION"; "local-dir:PATH", or PATH as a Path; or "demo", which ships
            with gatehub.
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
    name = f"local-dir:{name}" if isinstance(name, Path) else name
    check_backbone(name, weights=weights, pretrained=pretrained)
    if name == "demo":
        folder = _weights.resolve_folder(f"local-dir:{DEMO_FOLDER}")
        return Backbone(
            _weights.build(folder), source="demo", arguments=_weights.read_arguments(folder)
        )
    if name.startswith(("hf-hub:", "local-dir:")):
        resolved = _weights.resolve_folder(name)
        source = name.partition("@")[0] if resolved.revision else f"local-dir:{resolved.folder}"
        model = _weights.build(resolved)
        return Backbone(
            model,
            source=source,
            tag=_read_config(model, "tag"),
            revision=resolved.revision,
            arguments=_weights.read_arguments(resolved),
        )
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


def check_backbone(
    name: str, *, weights: str | Path | None = None, pretrained: bool = True
) -> None:
    """Refuse a backbone that `load_backbone` would refuse, as far as names and files tell.

    It costs next to nothing: no file is fetched or read, and no network is built.

    Args:
        name: see `load_backbone`.
        weights: see `load_backbone`.
        pretrained: see `load_backbone`.

    Raises:
        BackboneNotFoundError: no such name, tag, file or folder.
        UnsafeWeightsError: the weights are a pickle.
        BackboneError: weights are given for a backbone that has its own.
    """
    if name == "demo" or name.startswith(("hf-hub:", "local-dir:")):
        if weights is not None or not pretrained:
            raise BackboneError(
                f"'{name}' brings its own weights, but weights={weights} "
                f"pretrained={pretrained} were asked for too.",
                hint="Leave both out, or give a timm name instead.",
            )
        if name.startswith("local-dir:"):
            _weights.resolve_folder(name)
        return
    _weights.check_name(name)
    if weights is not None:
        _weights.resolve_file(weights)


@pin_settings()
def build_structure(name: str) -> nn.Module:
    """Build a network without weights, on the meta device, which takes no memory for them.

    Args:
        name: as for `load_backbone`; of a repository on the Hub only the configuration is read.

    Raises:
        BackboneNotFoundError: no such name, tag, folder or repository.
    """
    if name == "demo":
        name = f"local-dir:{DEMO_FOLDER}"
    if name.startswith(("hf-hub:", "local-dir:")):
        name = f"local-dir:{_weights.resolve_config(name).parent}"
    else:
        _weights.check_name(name)
    with torch.device("meta"):
        model: nn.Module = timm.create_model(name, pretrained=False)
    return model.eval()


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


def _read_config(model: nn.Module, key: str) -> str:
    config = cast(Mapping[str, Any], getattr(model, "pretrained_cfg", None) or {})
    return str(config.get(key) or "")
