"""A pretrained timm model, frozen: its weights and identity, its classifier, its input."""

from gatehub.backbone._weights import find_checkpoint, read_weights
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
    "find_checkpoint",
    "load_backbone",
    "read_weights",
]
