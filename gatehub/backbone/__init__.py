"""A pretrained timm model, frozen: its weights and identity, its classifier, its input."""

from gatehub.backbone.backbone import (
    Backbone,
    build_structure,
    check_backbone,
    load_backbone,
)
from gatehub.backbone.identity import BackboneIdentity, digest_tensors

__all__ = [
    "Backbone",
    "BackboneIdentity",
    "build_structure",
    "check_backbone",
    "digest_tensors",
    "load_backbone",
]
