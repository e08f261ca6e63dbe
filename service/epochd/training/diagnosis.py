"""What the loss curves of a training say: underfitting, good fit, overfitting or divergence. No torch.

The rules are those of the textbooks (Goodfellow, Bengio and Courville, Deep Learning, 2016, section 5.2;
Prechelt, Early Stopping - But When?, 1998), made robust: curves are smoothed, and a change counts only when
it stands out from the curve's own noise and matters beside the loss of the trivial predictor, the baseline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from epochd.training.loss_curve import MAX_POINTS, EpochPoint, LossCurve

__all__ = ["Diagnosis", "EpochPoint", "LossCurve", "Suggestion", "Verdict", "diagnose"]

Verdict = Literal["underfitting", "good_fit", "overfitting", "diverging", "undetermined"]
Float64Array = npt.NDArray[np.float64]

MIN_EPOCHS = 5
MIN_EPOCHS_TO_LEVEL = 10
"""Before that, only the end of training shows that a curve stays where it is."""
HORIZON = 10
"""A fall matters when it would matter after so many more epochs like the last ones."""
MAX_SMOOTHING = 15
MAX_SPIKE = 5
"""Points over which the running median is taken: spikes of up to half of them disappear."""

# How large a change must be to matter, as parts of the baseline; those named _OF_ as parts of the loss
# itself.
RISE, RISE_OF_BEST = 0.02, 0.1
FALL, FALL_OF_LOSS = 0.02, 0.05
GAP = 0.25
NEAR_BASELINE = 0.9
DIVERGED = 0.25
TRAIN_FALL_OF_LOSS = 0.02
NOISE_DEVIATIONS = 3.0
MAD_TO_DEVIATION = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A change to the job spec: each key of ``patch`` replaces the spec's field of that name."""

    message: str
    patch: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A verdict, the epoch since which it holds (None: undetermined), and the evidence in words."""

    verdict: Verdict
    since_epoch: int | None
    evidence: str
    suggestions: tuple[Suggestion, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "verdict": self.verdict,
            "since_epoch": self.since_epoch,
            "evidence": self.evidence,
            "suggestions": [{"message": s.message, "patch": s.patch} for s in self.suggestions],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Diagnosis":
        """Make it again from what ``as_dict`` gave."""
        suggestions = tuple(Suggestion(**suggestion) for suggestion in values["suggestions"])
        return cls(**{**values, "suggestions": suggestions})


def diagnose(
    curve: Sequence[EpochPoint], *, baseline_loss: float | None, epochs: int, finished: bool = False
) -> Diagnosis:
    """Read the curves of a training of ``epochs`` epochs as far as it has come.

    ``baseline_loss`` is what the trivial predictor (the training targets' mean, or their class frequencies)
    loses; without it the first epoch's loss stands in. ``finished`` says that no
    epoch will follow. Epochs without a finite validation loss are left out; time and memory grow with the
    curve (a ``LossCurve`` bounds both).
    """
    points = [point for point in curve if _is_measured(point)]
    if len(points) < MIN_EPOCHS:
        return _too_little(len(curve), len(points))
    at_end = finished or curve[-1].epoch >= epochs
    reading = _Reading(points, baseline_loss)
    return (
        _diverging(reading)
        or _overfitting(reading)
        or _standstill(reading, at_end=at_end)
        or _still_learning(reading, epochs, at_end=at_end)
        or _levelled(reading, at_end=at_end)
        or _unclear(reading)
    )


def _is_measured(point: EpochPoint) -> bool:
    loss = point.validation_loss
    return loss is not None and math.isfinite(loss) and math.isfinite(point.train_loss)


def _too_little(epochs: int, validated: int) -> Diagnosis:
    if epochs >= MIN_EPOCHS and validated == 0:
        suggestion = Suggestion(
            "Hold back a part of the samples for validation.", {"validation": {"fraction": 0.2}}
        )
        evidence = (
            "Nothing was validated, and the training loss alone does not tell overfitting from a good fit."
        )
        return Diagnosis("undetermined", None, evidence, (suggestion,))
    evidence = (
        f"{validated} validated epoch{'' if validated == 1 else 's'} so far; {MIN_EPOCHS} are needed to tell."
    )
    return Diagnosis("undetermined", None, evidence)


class _Reading:
    """Curves over the validated epochs: smoothed, with the noise that is left, and what is read off them."""

    def __init__(self, points: Sequence[EpochPoint], baseline: float | None) -> None:
        self.epochs = [point.epoch for point in points]
        raw = np.array([(p.train_loss, p.validation_loss) for p in points], dtype=np.float64).T
        self.raw_validation = raw[1]
        self.width = min(max(3, len(points) // 8 | 1), MAX_SMOOTHING)
        self.train, self.validation = _smoothed(raw, self.width)
        self.tail = max(3, len(points) // 4)
        """Over how many of the last points it is told where the curves are heading."""
        self.train_noise, self.validation_noise = _noise(raw)
        tails = raw[:, -self.tail - 1 :]
        self.train_fall, self.validation_fall = _falls(tails)
        steady = np.all(tails[:, 1:] < tails[:, :-1], axis=-1)
        self.train_is_steady, self.validation_is_steady = bool(steady[0]), bool(steady[1])
        self.is_early = len(points) < MIN_EPOCHS_TO_LEVEL
        self.has_baseline = baseline is not None and math.isfinite(baseline) and baseline > 0
        first = float(raw[:, 0].max())
        self.baseline = float(baseline) if self.has_baseline and baseline is not None else max(first, 1e-12)

    @cached_property
    def best(self) -> int:
        """Where validation is lowest: the lowest measured value around the minimum of the smoothed curve."""
        around = int(np.argmin(self.validation))
        start = max(around - self.width // 2, 0)
        return start + int(np.argmin(self.raw_validation[start : around + self.width // 2 + 1]))

    @cached_property
    def lowest(self) -> float:
        return float(self.validation.min())

    @cached_property
    def tolerance(self) -> float:
        """How far validation may lie above its minimum without having risen."""
        noise = NOISE_DEVIATIONS * self.validation_noise * math.sqrt(2 / self.width)
        return max(RISE * self.baseline, RISE_OF_BEST * self.lowest, noise)

    @cached_property
    def has_risen(self) -> bool:
        return self.last_validation - self.lowest > self.tolerance

    @property
    def last_train(self) -> float:
        return float(self.train[-1])

    @property
    def last_validation(self) -> float:
        return float(self.validation[-1])

    @cached_property
    def level_since(self) -> int:
        """The first epoch after which validation stays within the tolerance of its minimum."""
        above = np.flatnonzero(self.validation > self.lowest + self.tolerance)
        return self.epochs[int(above[-1]) + 1] if len(above) else self.epochs[0]

    @cached_property
    def is_train_falling(self) -> bool:
        return self._matters(self.train_fall, self.last_train) and (
            self.train_is_steady or self._stands_out(self.train_fall, self.train_noise)
        )

    @cached_property
    def is_validation_falling(self) -> bool:
        return self._matters(self.validation_fall, self.last_validation) and (
            self.validation_is_steady or self._stands_out(self.validation_fall, self.validation_noise)
        )

    def _matters(self, fall: float, loss: float) -> bool:
        """Whether a fall, at its pace over the horizon, is large beside the baseline and the loss."""
        ahead = fall * max(1.0, HORIZON / self.tail)
        return ahead > max(FALL * self.baseline, FALL_OF_LOSS * loss)

    def _stands_out(self, fall: float, noise: float) -> bool:
        # The slope of a line through m points with noise s has the deviation s * sqrt(12 / m^3).
        return fall > NOISE_DEVIATIONS * noise * math.sqrt(12 / self.tail)

    def is_trivial(self, loss: float) -> bool:
        """Whether a loss is hardly better than the trivial predictor's, where that is known."""
        return self.has_baseline and loss >= NEAR_BASELINE * self.baseline


def _smoothed(raw: Float64Array, width: int) -> Float64Array:
    """Smooth curves (curves, points): a running median against spikes, then a running mean."""
    points = raw.shape[-1]
    spikes = min(width, MAX_SPIKE)
    medians = np.partition(raw.take(_windows(points, spikes), axis=1), spikes // 2, axis=-1)[..., spikes // 2]
    smooth: Float64Array = medians.take(_windows(points, width), axis=1).mean(axis=-1)
    return smooth


def _noise(raw: Float64Array) -> list[float]:
    """The standard deviation of each curve's noise, from second differences: a trend adds nothing."""
    second = raw[:, :-2] - 2 * raw[:, 1:-1] + raw[:, 2:]
    deviations: list[float] = (MAD_TO_DEVIATION * np.median(np.abs(second), axis=-1) / math.sqrt(6)).tolist()
    return deviations


def _falls(tails: Float64Array) -> list[float]:
    """How far each curve falls along its tail, by the median of all slopes (Theil, 1950; Sen, 1968)."""
    first, second = _pairs(tails.shape[-1])
    slopes = (tails[:, first] - tails[:, second]) / (second - first)
    falls: list[float] = (np.median(slopes, axis=-1) * (tails.shape[-1] - 1)).tolist()
    return falls


@lru_cache(maxsize=MAX_POINTS)
def _pairs(points: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first, second = np.triu_indices(points, k=1)
    return first, second


@lru_cache(maxsize=MAX_POINTS)
def _windows(points: int, width: int) -> npt.NDArray[np.int64]:
    """The indices (points, width) around each point; near the ends those of the last full window."""
    starts = np.clip(np.arange(points) - width // 2, 0, points - width)
    return starts[:, None] + np.arange(width)


def _diverging(r: _Reading) -> Diagnosis | None:
    lowest = int(np.argmin(r.train))
    rise = r.last_train - float(r.train[lowest])
    if rise <= max(DIVERGED * r.baseline, NOISE_DEVIATIONS * r.train_noise) or not _is_rising(r):
        return None
    evidence = (
        f"The training loss itself rises: from {_n(r.train[lowest])} around epoch {r.epochs[lowest]} to "
        f"{_n(r.last_train)} (trivial predictor: {_n(r.baseline)})."
    )
    suggestion = Suggestion(
        "Lower the learning rate; clipping the gradient keeps single mini-batches from throwing the "
        "weights off.",
        {"gradient_clip_norm": 1.0},
    )
    return Diagnosis("diverging", _after(r, lowest), evidence, (suggestion,))


def _is_rising(r: _Reading) -> bool:
    return r.last_train > float(r.train[-1 - r.tail]) or r.last_train > 2 * r.baseline


def _overfitting(r: _Reading) -> Diagnosis | None:
    train_then = float(r.train[r.best])
    if not r.has_risen or train_then - r.last_train <= TRAIN_FALL_OF_LOSS * train_then:
        return None
    evidence = (
        f"The validation loss has risen from {_n(r.lowest)} around epoch {r.epochs[r.best]} to "
        f"{_n(r.last_validation)}, while the training loss went on falling from {_n(train_then)} to "
        f"{_n(r.last_train)}."
    )
    return Diagnosis("overfitting", _after(r, r.best), evidence, _against_overfitting(r.epochs[r.best]))


def _against_overfitting(best_epoch: int) -> tuple[Suggestion, ...]:
    policy = {"monitor": "validation_loss", "mode": "min", "patience": min(max(5, best_epoch // 5), 50)}
    return (
        Suggestion(
            "Stop when validation no longer improves, and keep the best epoch.", {"early_stopping": policy}
        ),
        Suggestion(f"Or train no longer than to its best epoch, {best_epoch}.", {"epochs": best_epoch}),
    )


def _standstill(r: _Reading, *, at_end: bool) -> Diagnosis | None:
    """Both losses are no better than the trivial predictor's, and nothing moves."""
    is_moving = r.is_train_falling or r.is_validation_falling
    if is_moving or not (r.is_trivial(r.last_train) and r.is_trivial(r.last_validation)):
        return None
    evidence = (
        f"The training loss stands at {_n(r.last_train)} and does not fall; the trivial predictor, which "
        f"knows no features, loses {_n(r.baseline)}."
    )
    if r.is_early and not at_end:
        return Diagnosis("undetermined", None, evidence)
    suggestion = Suggestion(
        "Give the model more capacity, or raise the learning rate; the features may also say little about "
        "the target.",
        {"model": {"name": "mlp", "hidden_sizes": [256, 256]}},
    )
    return Diagnosis("underfitting", r.epochs[0], evidence, (suggestion,))


def _still_learning(r: _Reading, epochs: int, *, at_end: bool) -> Diagnosis | None:
    if not r.is_validation_falling or r.has_risen:
        return None
    evidence = (
        f"Over the last {r.epochs[-1] - r.epochs[-1 - r.tail]} epochs the validation loss fell by about "
        f"{_n(r.validation_fall)} to {_n(r.last_validation)}, the training loss by {_n(r.train_fall)} to "
        f"{_n(r.last_train)}: "
    )
    if not at_end:
        return Diagnosis("undetermined", None, f"{evidence}still learning.")
    evidence = f"{evidence}training ended while it was still learning."
    return Diagnosis("underfitting", r.epochs[0], evidence, _train_longer(r.epochs[-1], epochs))


def _train_longer(last_epoch: int, epochs: int) -> tuple[Suggestion, ...]:
    if last_epoch < epochs:
        return ()
    return (Suggestion(f"Train longer: {2 * epochs} epochs.", {"epochs": 2 * epochs}),)


def _levelled(r: _Reading, *, at_end: bool) -> Diagnosis | None:
    if r.has_risen or (r.is_early and not at_end):
        return None
    has_gap = r.last_validation - r.last_train > GAP * r.baseline
    if r.tolerance > GAP * max(r.baseline, r.lowest) or (not has_gap and r.is_trivial(r.last_validation)):
        return None
    where = (
        f"The validation loss has levelled off at {_n(r.last_validation)} (lowest {_n(r.lowest)}) since "
        f"epoch {r.level_since}"
    )
    if not has_gap:
        evidence = (
            f"{where}, close to the training loss of {_n(r.last_train)} (trivial predictor: "
            f"{_n(r.baseline)})."
        )
        return Diagnosis("good_fit", r.level_since, evidence)
    evidence = (
        f"{where}, far above the training loss of {_n(r.last_train)}: what is still learned of the training "
        "samples does not carry over to others."
    )
    return Diagnosis("overfitting", r.level_since, evidence, _against_overfitting(r.epochs[r.best]))


def _unclear(r: _Reading) -> Diagnosis:
    evidence = (
        f"No clear picture: the validation loss lies at {_n(r.last_validation)} (lowest {_n(r.lowest)} "
        f"around epoch {r.epochs[r.best]}), the training loss at {_n(r.last_train)}, the trivial predictor's "
        f"at {_n(r.baseline)}."
    )
    return Diagnosis("undetermined", None, evidence)


def _after(r: _Reading, index: int) -> int:
    return r.epochs[min(index + 1, len(r.epochs) - 1)]


def _n(value: float) -> str:
    return f"{value:.4g}"
