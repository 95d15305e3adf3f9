"""Who wants to know how a training run goes, and the records of those who write it down."""

from gatehub.training.observers.observer import Observer, Observers, Step

__all__ = ["Observer", "Observers", "Step"]
