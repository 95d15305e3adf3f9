"""Data sets of Hugging Face's `datasets`: on their Hub, or in a folder that it can load."""

from gatehub.training.sources.huggingface.dataset import has_features, read_dataset
from gatehub.training.sources.huggingface.loading import PREFIX

__all__ = ["PREFIX", "has_features", "read_dataset"]
