"""The adapter: one task's gates, normalisation values and head, as an object and as a folder."""

from gatehub.adapter.adapter import Adapter
from gatehub.adapter.config import AdapterConfig
from gatehub.adapter.files import verify_adapter
from gatehub.adapter.folder import ADAPTER_FILES

__all__ = ["ADAPTER_FILES", "Adapter", "AdapterConfig", "verify_adapter"]
