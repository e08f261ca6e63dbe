"""The curves of a training over the validated epochs, and what is read off them. No torch."""

import math
import statistics
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from epochd.training.diagnosis.comparison import above, holds
from epochd.training.diagnosis.curves import falls, noise, smoothed, smoothing_width, trends
from epochd.training.diagnosis.thresholds import HORIZON, MIN_EPOCHS_TO_LEVEL, Thresholds
from epochd.training.loss_curve import EpochPoint

MIN_TAIL = 3
"""Steps of the tail; as many parts of all others."""


class Reading:
    """At least five validated points: smoothed, with the noise that is left, and conditions on them.

    ``trivial`` is the loss of the trivial predictor, or None; ``baseline`` stands in for it then: the first epoch's.
    Conditions are those of ``comparison``.
    """

    def __init__(self, points: Sequence[EpochPoint], trivial: float | None, thresholds: Thresholds) -> None:
        self.thresholds = thresholds
        self.points = points
        self.epochs = [point.epoch for point in points]
        self._raw = np.array([(p.train_loss, p.validation_loss) for p in points], dtype=np.float64).T
        self.width = smoothing_width(len(points))
        self.train, self.validation = smoothed(self._raw, self.width)
        self.tail = max(MIN_TAIL, len(points) // 4)
        """Over how many of the last points it is told where the curves are heading."""
        self.train_noise, self.validation_noise = noise(self._raw)
        tails = self._raw[:, -self.tail - 1 :]
        self.train_fall, self.validation_fall = falls(tails)
        steady = np.all(tails[:, 1:] < tails[:, :-1], axis=-1)
        self._steady = holds(bool(steady[0])), holds(bool(steady[1]))
        self.is_early = len(points) < MIN_EPOCHS_TO_LEVEL
        is_known = trivial is not None and math.isfinite(trivial) and trivial > 0
        self.trivial = trivial if is_known else None
        self.baseline = self.trivial or max(float(self._raw[:, 0].max()), 1e-12)

    @cached_property
    def best(self) -> int:
        """Where validation is lowest: the lowest measured value around the minimum of the smoothed curve."""
        around = int(np.argmin(self.validation))
        start = max(around - self.width // 2, 0)
        return start + int(np.argmin(self._raw[1, start : around + self.width // 2 + 1]))

    @cached_property
    def lowest(self) -> float:
        """The minimum of the smoothed validation loss."""
        return float(self.validation.min())

    @cached_property
    def tolerance(self) -> float:
        """How far validation may lie above its minimum without having risen."""
        deviation = self.validation_noise * math.sqrt(2 / self.width)
        limits = self.thresholds
        return max(
            limits.rise * self.baseline, limits.rise_of_loss * self.lowest, limits.deviations * deviation
        )

    @property
    def last_train(self) -> float:
        """The smoothed training loss now."""
        return float(self.train[-1])

    @property
    def last_validation(self) -> float:
        """The smoothed validation loss now."""
        return float(self.validation[-1])

    @cached_property
    def level_since(self) -> int:
        """The first epoch after which validation falls by nothing more that matters."""
        limits = self.thresholds
        deviation = self.validation_noise * math.sqrt(2 / self.width)
        matters = max(
            limits.fall * self.baseline, limits.fall_of_loss * self.lowest, limits.deviations * deviation
        )
        last = max(self.last_validation, self.lowest + matters)
        beyond = np.flatnonzero(self.validation[: self.best + 1] > last)
        return self.epochs[int(beyond[-1]) + 1] if len(beyond) else self.epochs[0]

    @cached_property
    def risen(self) -> float:
        """Validation has risen from its minimum."""
        return above(self.last_validation - self.lowest, self.tolerance)

    @cached_property
    def train_falling(self) -> float:
        """The training loss falls, by something that matters and stands out from its noise."""
        return self._falling(self.train_fall, self.last_train, self.train_noise, self._steady[0])

    @cached_property
    def validation_falling(self) -> float:
        """The same of the validation loss."""
        return self._falling(
            self.validation_fall, self.last_validation, self.validation_noise, self._steady[1]
        )

    def _falling(self, fall: float, loss: float, noise: float, steady: float) -> float:
        ahead = fall * max(1.0, HORIZON / self.tail)
        limits = self.thresholds
        matters = above(ahead, max(limits.fall * self.baseline, limits.fall_of_loss * loss))
        # The slope of a line through m points with noise s has the deviation s * sqrt(12 / m^3).
        stands_out = above(fall, limits.deviations * noise * math.sqrt(12 / self.tail))
        return min(matters, max(steady, stands_out))

    @cached_property
    def noisy(self) -> float:
        """Validation jumps about from epoch to epoch, beside the baseline and beside its own value."""
        limits = self.thresholds
        least = max(limits.noisy * self.baseline, limits.noisy_of_loss * self.last_validation)
        return above(self.validation_noise, least)

    @cached_property
    def gap(self) -> float:
        """Validation lies far above training, by more than its noise explains."""
        limits = self.thresholds
        explained = limits.deviations * self.validation_noise / math.sqrt(self.width)
        return above(self.last_validation - self.last_train - explained, limits.gap * self.baseline)

    def near_trivial(self, loss: float) -> float:
        """A loss is hardly better than the trivial predictor's, where that is known."""
        return self._at_least(loss, self.thresholds.trivial)

    @cached_property
    def unexplained(self) -> float:
        """Validation has kept much of the trivial predictor's loss, where that is known."""
        return self._at_least(self.last_validation, self.thresholds.plateau)

    def _at_least(self, loss: float, part: float) -> float:
        return -1.0 if self.trivial is None else above(loss, part * self.trivial)

    def measurements(self, epochs: int) -> dict[str, float | None]:
        """The evidence in numbers; losses and what is made of them are in units of the loss, None where unknown.

        - ``epochs``: how many training may take; ``last_epoch``, ``best_epoch`` of the validated ones, which are
          ``validated_epochs`` (those of a long training are merged to at most 128);
        - ``train_loss``, ``validation_loss``, ``best_validation_loss``: smoothed, the last two now and at their least;
        - ``trivial_loss``: of the predictor that knows no features; ``distance_to_trivial``: by which part of it
          validation is better;
        - ``generalisation_gap``: validation less training loss;
        - ``train_slope``, ``validation_slope``, ``gap_slope``: of the last quarter, an epoch, each with the standard
          error ``…_error``; ``still_falling``: 1 where validation falls by something that matters, else 0;
        - ``train_noise``, ``validation_noise``: the standard deviation from epoch to epoch, without the trend;
        - ``mini_batch_noise``: that of the losses of the mini-batches within an epoch, over the last quarter.
        """
        values = {
            "epochs": epochs,
            "validated_epochs": len(self.points),
            "last_epoch": self.epochs[-1],
            "best_epoch": self.epochs[self.best],
            "train_loss": self.last_train,
            "validation_loss": self.last_validation,
            "best_validation_loss": self.lowest,
            "trivial_loss": self.trivial,
            "distance_to_trivial": self.trivial and 1 - self.last_validation / self.trivial,
            "generalisation_gap": self.last_validation - self.last_train,
            **self._trends(),
            "still_falling": float(self.validation_falling > 0),
            "train_noise": self.train_noise,
            "validation_noise": self.validation_noise,
            "mini_batch_noise": self._mini_batch_noise(),
        }
        return {name: _finite(value) for name, value in values.items()}

    def _trends(self) -> dict[str, float]:
        epochs = np.array(self.epochs[-self.tail - 1 :], dtype=np.float64)
        tails = self._raw[:, -self.tail - 1 :]
        slopes, errors = trends(epochs, np.vstack([tails, tails[1] - tails[0]]))
        named = zip(("train", "validation", "gap"), slopes, errors, strict=True)
        return {
            f"{name}_slope{what}": value
            for name, slope, error in named
            for what, value in (("", slope), ("_error", error))
        }

    def _mini_batch_noise(self) -> float | None:
        last = [p.mini_batch_noise for p in self.points[-self.tail - 1 :] if p.mini_batch_noise is not None]
        return statistics.median(last) if last else None


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
