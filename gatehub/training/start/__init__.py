"""How a run begins: the head as the linear probe, and what the recipe leaves open, chosen."""

from gatehub.training.start.beginning import Choices, KnownStart, Start, begin, find_start

__all__ = ["Choices", "KnownStart", "Start", "begin", "find_start"]
