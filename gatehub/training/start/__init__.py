"""How a run begins: the head as the linear probe, and what the recipe leaves open, chosen."""

from gatehub.training.start.beginning import Choices, Start, begin

__all__ = ["Choices", "Start", "begin"]
