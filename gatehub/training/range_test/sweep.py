"""The sweep of a range test: steps at rates from small to large; arXiv 1506.01186, section 3.3."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from gatehub.backbone import Backbone
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.backbone.torch_settings import set_host_aside
from gatehub.errors import DivergenceError, TrainingError
from gatehub.gates.kernel_memory import arrange_kernels
from gatehub.training.batches import evaluation_batches, seed_everything
from gatehub.training.data import ImageData
from gatehub.training.economy.precision import MixedPrecision, check_backbone_precision
from gatehub.training.economy.recomputing import recompute_blocks
from gatehub.training.observers import Step
from gatehub.training.recipe import Recipe
from gatehub.training.start import begin
from gatehub.training.start.origin import (
    Form,
    Origin,
    attach_model,
    choose_form,
    count_known,
)
from gatehub.training.steps import train_epoch
from gatehub.training.steps.optimiser import make_optimiser

STEPS = 60
LOWEST, HIGHEST = 1e-5, 1.0
# The batches differ by chance, so a loss is taken together with those before it.
_SMOOTHING = 0.8
# At so many times the first loss, or so many nats, larger rates have nothing more to tell.
_LOST = 4.0
# A smaller gain over the whole sweep is chance.
_LEAST_GAIN = 0.03
# Where the loss is lowest, the rate is as large as it may be; a run needs room below that.
_ROOM = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRange:
    """What a sweep found.

    Args:
        rates: the rate of the gates and normalisation values at each step, rising.
        losses: the loss of each step's images before that step, in nats.
        found: the rate of the gates that a run would take if none is given; of the normalisation
            values where there are no gates.
        learned: what has these rates.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    found: float
    learned: str = "gates"

    @property
    def smoothed(self) -> list[float]:
        """The losses as exponential moving averages, without the pull of their beginning."""
        mean, weight, found = 0.0, 0.0, []
        for loss in self.losses:
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            weight = _SMOOTHING * weight + 1 - _SMOOTHING
            found.append(mean / weight)
        return found

    @property
    def lowest(self) -> float | None:
        """The rate at which the smoothed loss is lowest; None where no rate lowers it."""
        smoothed = self.smoothed
        least = min(range(len(smoothed)), key=smoothed.__getitem__)
        gain = 1 - smoothed[least] / smoothed[0] if smoothed[0] > 0 else 0.0
        return self.rates[least] if gain >= _LEAST_GAIN else None

    @property
    def suggested(self) -> float | None:
        """A tenth of the rate at which the loss is lowest, which is the rule of thumb."""
        return None if self.lowest is None else float(f"{self.lowest / _ROOM:.2g}")


@set_host_aside()
def sweep_rates(
    backbone: Backbone,
    data: ImageData,
    *,
    recipe: Recipe,
    gates: str | None = None,
    norm: str | None = None,
    start: str | None = None,
    shift: bool = False,
    preprocessing: Preprocessing | None = None,
    init_from: Origin | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> RateRange:
    """Train for a few dozen steps at rising rates of the gates, and throw away what was learned.

    It begins where a run begins, such as at the linear probe, and the head stays there: what the
    loss does is due to the gates and the normalisation values alone. It ends early where the loss
    is lost.

    Args:
        backbone: it stays as it is.
        data: from `load_data`.
        recipe: settings; rates in it are left aside. One seed gives one result.
        gates: see `train_adapter`.
        norm: see `train_adapter`.
        start: see `train_adapter`.
        shift: see `train_adapter`.
        preprocessing: see `train_adapter`.
        init_from: see `train_adapter`.
        workers: processes that decode images beside this one.
        progress: is told how many steps are done, and of how many.

    Raises:
        TrainingError: neither gates nor normalisation values are learned.
        GatehubError: as for `train_adapter`.
    """
    seed_everything(recipe.seed)
    form = choose_form(init_from, gates=gates, norm=norm, start=start, shift=shift)
    check_sweep(form, recipe)
    check_backbone_precision(backbone, recipe.precision)
    if init_from is not None:
        init_from.check_problem(multi_label=data.multi_label)
        data = init_from.take_up(data)
    model = attach_model(backbone, data.labels, form, init_from)
    arrange_kernels(model)
    if recipe.gradient_checkpointing:
        recompute_blocks(model.net)
    mixed = MixedPrecision(recipe.precision, next(model.parameters()).device)
    model.preprocessing = preprocessing or model.preprocessing
    free = replace(recipe, gate_rate=None, norm_rate=None)
    sample = data.val.sample(recipe.val_images, seed=recipe.seed)
    watched = evaluation_batches(sample, model.preprocessing.transform(), workers=workers)
    known = count_known(init_from)
    begun = begin(model, data, free, watched=watched, known=known, workers=workers)
    # The rates are shares of these peaks.
    choices = replace(begun.choices, gate_rate=1.0, norm_rate=1.0, head_rate=0.0)
    rising = _Rising(**asdict(free))
    optimiser = make_optimiser(model, rising, choices)
    losses: list[float] = []

    def note(step: Step) -> None:
        losses.append(step.loss)
        if progress is not None:
            progress(len(losses), STEPS)
        if len(losses) == STEPS or step.loss > _LOST * max(losses[0], 1.0):
            raise _Enough

    epoch = 0
    try:
        while True:
            epoch += 1
            train_epoch(
                model,
                optimiser,
                data,
                rising,
                choices,
                begun.penalties,
                mixed,
                epoch=epoch,
                workers=workers,
                on_step=note,
            )
    except (_Enough, DivergenceError):
        pass
    rates = [rising.rate_at(step, STEPS) for step in range(len(losses))]
    chosen = begun.choices
    if form.gates == "none":
        return RateRange(
            rates=rates, losses=losses, found=chosen.norm_rate, learned="normalisation values"
        )
    return RateRange(rates=rates, losses=losses, found=chosen.gate_rate)


def check_sweep(form: Form, recipe: Recipe) -> None:
    """Refuse a run of which no rate of the gates or normalisation values is to be found.

    Raises:
        TrainingError: nothing but the head is learned.
    """
    if recipe.epochs == 0 or (form.gates == "none" and form.norm == "frozen"):
        raise TrainingError(
            "A range test (lr_find) tries rates of gates and normalisation values, and nothing but "
            "the head would be learned.",
            hint="Take method 'gates', 'scale' or 'norm', with epochs; or leave out lr_find.",
        )


class _Enough(Exception):
    """The sweep is done."""


class _Rising(Recipe):
    """A recipe whose rates rise by the same factor in each step."""

    def rate_at(self, step: int, steps: int) -> float:
        """Return the rate itself: all peaks are 1."""
        span = math.log(HIGHEST / LOWEST)
        return LOWEST * math.exp(span * step / (STEPS - 1))
