"""The rules, one for each verdict: the first that applies is taken. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from epochd.training.diagnosis import evidence
from epochd.training.diagnosis.comparison import above
from epochd.training.diagnosis.finding import Diagnosis, Verdict
from epochd.training.diagnosis.reading import Reading
from epochd.training.diagnosis.thresholds import FITTED, MIN_EPOCHS, Thresholds
from epochd.training.loss_curve import EpochPoint


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, the epoch since which it holds, its margin from 0 to 1 (see ``comparison``), and the evidence."""

    verdict: Verdict
    since_epoch: int
    margin: float
    evidence: str


def diagnose(
    curve: Sequence[EpochPoint],
    *,
    baseline_loss: float | None,
    epochs: int,
    finished: bool = False,
    thresholds: Thresholds = FITTED,
) -> Diagnosis:
    """Read the curves of a training of ``epochs`` epochs as far as it has come.

    ``baseline_loss`` is what the trivial predictor (the training targets' mean, or their class frequencies)
    loses; without it the first epoch's loss stands in. ``finished`` says that no
    epoch will follow. Epochs without a finite validation loss are left out; time and memory grow with the
    curve (a ``LossCurve`` bounds both).
    """
    points = [point for point in curve if _is_measured(point)]
    if len(points) < MIN_EPOCHS:
        return Diagnosis("undetermined", None, evidence.too_little(len(curve), len(points)))
    at_end = finished or curve[-1].epoch >= epochs
    reading = Reading(points, baseline_loss, thresholds)
    measurements = reading.measurements(epochs)
    found = _found(reading, at_end=at_end)
    if found is None:
        return Diagnosis("undetermined", None, _unclear(reading, at_end=at_end), measurements=measurements)
    confidence = round(thresholds.confidence(found.verdict, found.margin), 3)
    return Diagnosis(found.verdict, found.since_epoch, found.evidence, confidence, measurements)


def _is_measured(point: EpochPoint) -> bool:
    loss = point.validation_loss
    return loss is not None and math.isfinite(loss) and math.isfinite(point.train_loss)


def _found(r: Reading, *, at_end: bool) -> Finding | None:
    has_levelled = at_end or not r.is_early
    return (
        _diverging(r)
        or _overfitting(r)
        or (_standstill(r) if has_levelled else None)
        or (_cut_short(r) if at_end else None)
        or (_levelled(r) if has_levelled else None)
    )


def _diverging(r: Reading) -> Finding | None:
    lowest = int(r.train.argmin())
    rise = r.last_train - float(r.train[lowest])
    limits = r.thresholds
    margin = min(
        above(rise, max(limits.diverged * r.baseline, limits.deviations * r.train_noise)),
        max(-r.train_falling, above(r.last_train, 2 * r.baseline)),
    )
    if margin <= 0:
        return None
    return Finding("diverging", _after(r, lowest), margin, evidence.diverging(r, lowest))


def _overfitting(r: Reading) -> Finding | None:
    then = float(r.train[r.best])
    margin = min(r.risen, above(then - r.last_train, r.thresholds.train_fall_of_loss * then))
    if margin <= 0:
        return None
    return Finding("overfitting", _after(r, r.best), margin, evidence.overfitting(r, then))


def _standstill(r: Reading) -> Finding | None:
    """Both losses are no better than the trivial predictor's, and nothing moves."""
    is_trivial = min(r.near_trivial(r.last_train), r.near_trivial(r.last_validation))
    margin = min(-r.train_falling, -r.validation_falling, is_trivial)
    return Finding("underfitting", r.epochs[0], margin, evidence.standstill(r)) if margin > 0 else None


def _cut_short(r: Reading) -> Finding | None:
    """Training ended while validation still fell."""
    margin = min(r.validation_falling, -r.risen)
    return Finding("underfitting", r.epochs[0], margin, evidence.cut_short(r)) if margin > 0 else None


def _levelled(r: Reading) -> Finding | None:
    """Validation moves no more, or only from noise: which of noise, overfitting, plateau and good fit that is."""
    level = min(-r.validation_falling, -r.risen)
    if min(level, r.gap) > 0:
        return Finding("overfitting", r.level_since, min(level, r.gap), evidence.gap(r))
    if min(r.noisy, -r.validation_falling) > 0:
        return Finding("noisy", r.epochs[0], min(r.noisy, -r.validation_falling), evidence.noisy(r))
    if level <= 0:
        return None
    if r.near_trivial(r.last_validation) > 0:
        return None
    steady = min(level, -r.noisy, -r.gap)
    if r.unexplained > 0:
        return Finding("plateau", r.level_since, min(steady, r.unexplained), evidence.plateau(r))
    return Finding("good_fit", r.level_since, min(steady, -r.unexplained), evidence.good_fit(r))


def _unclear(r: Reading, *, at_end: bool) -> str:
    if not at_end and min(r.validation_falling, -r.risen) > 0:
        return evidence.still_learning(r)
    if r.is_early and not at_end and _standstill(r):
        return evidence.standstill(r)
    return evidence.unclear(r)


def _after(r: Reading, index: int) -> int:
    return r.epochs[min(index + 1, len(r.epochs) - 1)]
