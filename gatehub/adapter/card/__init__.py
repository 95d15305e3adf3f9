"""README.md of an adapter: its model card, and the command that trains such an adapter."""

from gatehub.adapter.card.names import last_name, name_backbone, name_base_model
from gatehub.adapter.card.rendering import (
    CURVE_FILE,
    GATES_FILE,
    describe_adapter,
    render_card,
    write_cell,
)

__all__ = [
    "CURVE_FILE",
    "GATES_FILE",
    "describe_adapter",
    "last_name",
    "name_backbone",
    "name_base_model",
    "render_card",
    "write_cell",
]
