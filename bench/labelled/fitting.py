"""Fits the thresholds of the diagnosis to labelled curves, one after the other."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any, Final

from epochd.training.diagnosis import FITTED, Thresholds
from labelled.curves import LabelledCurve

CANDIDATES: Final[dict[str, Sequence[float]]] = {
    "rise": (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1),
    "rise_of_loss": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "fall": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1),
    "fall_of_loss": (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3),
    "train_fall_of_loss": (0.01, 0.02, 0.05, 0.1, 0.2),
    "gap": (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5),
    "trivial": (0.8, 0.84, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98),
    "plateau": (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
    "diverged": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4),
    "noisy": (0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    "noisy_of_loss": (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25),
    "deviations": (2.0, 2.5, 3.0, 3.5, 4.0),
}
ROUNDS: Final = 3


def fitted(curves: Sequence[LabelledCurve]) -> Thresholds:
    """Take each threshold from the middle of the values that are right most often, with the others as they are.

    What counts is the mean over the labels of how many are right, so that a rare fault counts as much as a common one.
    Then the reliability of each verdict.
    """
    thresholds = FITTED
    for _ in range(ROUNDS):
        for name, values in CANDIDATES.items():
            scores = [score(curves, _with(thresholds, name, value)) for value in values]
            best = [value for value, one in zip(values, scores, strict=True) if one >= max(scores) - 1e-9]
            thresholds = _with(thresholds, name, best[len(best) // 2])
    return _with_reliability(curves, thresholds)


def _with(thresholds: Thresholds, name: str, value: float) -> Thresholds:
    changes: dict[str, Any] = {name: value}
    return replace(thresholds, **changes)


def score(curves: Sequence[LabelledCurve], thresholds: Thresholds) -> float:
    """The mean over the labels of the part that is right."""
    right: dict[str, list[bool]] = {}
    for one in curves:
        right.setdefault(one.label, []).append(one.diagnosed(thresholds).verdict == one.label)
    return mean(mean(of_label) for of_label in right.values())


def _with_reliability(curves: Sequence[LabelledCurve], thresholds: Thresholds) -> Thresholds:
    right: dict[str, list[bool]] = {}
    for one in curves:
        said = one.diagnosed(thresholds).verdict
        right.setdefault(said, []).append(said == one.label)
    reliability = {verdict: round((sum(of_it) + 1) / (len(of_it) + 2), 2) for verdict, of_it in right.items()}
    return replace(thresholds, reliability=reliability)
