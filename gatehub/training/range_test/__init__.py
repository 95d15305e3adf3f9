"""A range test: what each learning rate does to the loss, before a run is begun."""

from gatehub.training.range_test.picture import draw_range
from gatehub.training.range_test.sweep import RateRange, check_sweep, sweep_rates

__all__ = ["RateRange", "check_sweep", "draw_range", "sweep_rates"]
