"""What a task answered to a few known images where it was made, to be asked again anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatehub._text import quote
from gatehub.adapter._fields import Fields, describe
from gatehub.adapter.coding.stored import list_stored, parse_stored
from gatehub.backbone.preprocessing import Preprocessing
from gatehub.errors import ConfigError, SelfCheckError

PROBE_SEED = 0
PROBE_IMAGES = 3
# For float32 on another machine; half precision has a tolerance of its own.
PROBE_TOLERANCE = 0.01
# Logits that differ by less than this share of the largest are alike to float32: a hundredth of it
# is eight units in the last place.
_RESOLUTION = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A task's logits for the images of a seed, computed from the values that are stored.

    Args:
        seed: of the images; see `draw_images`.
        dtype: in which it was stored, see `Adapter.save`.
        logits: (3, classes).

    Raises:
        ConfigError: a seed that is none, another number of answers, answers of several lengths, or
            a logit that no task answers in float32.
    """

    seed: int
    dtype: str
    logits: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise ConfigError(
                f"A probe has the seed {describe(self.seed)}; expected 0 to {2**32 - 1}."
            )
        if parse_stored(self.dtype) is None:
            raise ConfigError(
                f"A probe has the dtype {quote(self.dtype, 40)}; expected {list_stored()}."
            )
        if len(self.logits) != PROBE_IMAGES or len({len(row) for row in self.logits}) != 1:
            raise ConfigError(
                f"A probe has {len(self.logits)} answers of {sorted({*map(len, self.logits)})} "
                f"logits; expected {PROBE_IMAGES} of one length."
            )
        if not np.isfinite(self.logits).all():
            raise ConfigError(
                "A probe has logits that are not finite, so nothing can be compared with them.",
                hint="Train the task again, at a lower rate.",
            )
        if not np.isfinite(_as_float32(self.logits)).all():
            largest = max(abs(value) for row in self.logits for value in row)
            raise ConfigError(
                f"A probe has the logit {largest:.3g}; expected what float32 can hold, up to "
                f"{np.finfo(np.float32).max:.3g}.",
                hint="Save the adapter again with its backbone at hand (with_probe).",
            )

    @classmethod
    def of(cls, logits: Sequence[Sequence[float]], *, dtype: str) -> Probe:
        """Keep the answers to the images of `PROBE_SEED`: nine digits carry a float32 exactly."""
        rows = tuple(tuple(float(f"{value:.9g}") for value in row) for row in logits)
        return cls(seed=PROBE_SEED, dtype=dtype, logits=rows)

    def to_json(self) -> dict[str, object]:
        """Return the section of config.json."""
        return {
            "seed": self.seed,
            "dtype": self.dtype,
            "logits": [list(row) for row in self.logits],
        }

    def drift(self, logits: npt.ArrayLike) -> float:
        """Return how far other answers are from these, as a share of how far these differ.

        The largest absolute difference of a logit, divided by the standard deviation of the stored
        logits around the mean of their image: what decides between classes is what counts. Where
        they are alike to float32, as with one class, the largest of them takes its place.

        Args:
            logits: (3, classes).

        Returns:
            0 for the same answers, infinity for values that are not finite.
        """
        stored, found = np.asarray(self.logits, np.float64), np.asarray(logits, np.float64)
        if found.shape != stored.shape or not np.isfinite(found).all():
            return float("inf")
        spread = float((stored - stored.mean(axis=1, keepdims=True)).std())
        largest = float(np.abs(stored).max())
        scale = spread if spread > largest * _RESOLUTION else largest or 1.0
        return float(np.abs(found - stored).max() / scale)


def read_probe(fields: Fields) -> Probe:
    """Read the section of config.json.

    Raises:
        ConfigError: a field is missing, unknown or ill-typed.
    """
    seed, dtype = fields.take("seed", int), fields.take("dtype", str)
    rows = fields.take_list("logits", list)
    named = Fields({f"logits[{i}]": row for i, row in enumerate(rows)}, where=fields.where)
    logits = tuple(named.take_list(name, float) for name in named.names())
    fields.done()
    return Probe(seed=seed, dtype=dtype, logits=logits)


def draw_images(seed: int, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the images of a probe: (3, C, H, W), in [-2, 2) as normalised ones about are.

    They come from `numpy.random.RandomState`, a stream that numpy froze, so they are the same on
    every machine and in years.
    """
    shape = (PROBE_IMAGES, *preprocessing.input_size)
    return np.random.RandomState(seed).uniform(-2, 2, shape).astype(np.float32)


def draw_probe_images(probe: Probe | None, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the images to ask a task by: those of its probe, or of `PROBE_SEED` if it has none."""
    return draw_images(PROBE_SEED if probe is None else probe.seed, preprocessing)


def check_probe(
    probe: Probe | None, logits: npt.ArrayLike, *, tolerance: float, task: str, where: str
) -> None:
    """Refuse a task that cannot answer here, or not as it did where it was made.

    Args:
        probe: what it answered there; without one, finite answers are all that is asked for.
        logits: (3, classes), what it answers here to `draw_probe_images`.
        tolerance: largest drift that passes; see `Probe.drift`.
        task: for the error.
        where: what answers here, such as "the engine in bfloat16".

    Raises:
        SelfCheckError: it answers with NaN or infinity, or drifts further.
    """
    if not np.isfinite(np.asarray(logits, np.float64)).all():
        raise SelfCheckError(
            f"Task '{task}' answers the images of its probe with NaN or infinity on {where}.",
            hint="Use another dtype or device, or train it again at a lower rate.",
        )
    drift = 0.0 if probe is None else probe.drift(logits)
    if not drift <= tolerance:
        raise SelfCheckError(
            f"Task '{task}' answers its probe differently on {where}: it drifts by {drift:.2g} of "
            f"the spread of its logits; expected at most {tolerance:.2g}.",
            hint="Use another dtype or device. If you changed it after its probe was made, make "
            "the probe again (with_probe).",
        )


def _as_float32(logits: Sequence[Sequence[float]]) -> npt.NDArray[np.float32]:
    """Round as float32 does: beyond its range is infinity."""
    with np.errstate(over="ignore"):
        return np.asarray(logits, np.float64).astype(np.float32)
