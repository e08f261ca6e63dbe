"""Labelled curves as they are diagnosed, and kept for the tests."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from epochd.training.diagnosis import Diagnosis, Thresholds, diagnose
from epochd.training.loss_curve import EpochPoint, LossCurve
from labelled.trained import Trained


@dataclass(frozen=True)
class LabelledCurve:
    """What the diagnosis of a finished training sees, and what it should say."""

    name: str
    label: str
    is_for_fitting: bool
    trivial: float
    epochs: int
    points: tuple[EpochPoint, ...]

    def diagnosed(self, thresholds: Thresholds) -> Diagnosis:
        """Diagnose it at its end."""
        curve = LossCurve(self.points)
        return diagnose(curve, baseline_loss=self.trivial, epochs=self.epochs, thresholds=thresholds)


def of(one: Trained, label: str) -> LabelledCurve:
    """Keep what is seen of a training, at four digits: so many as the tests read."""
    points = (
        EpochPoint(
            p.epoch, _digits(p.train_loss), None if p.validation_loss is None else _digits(p.validation_loss)
        )
        for p in one.curve
    )
    return LabelledCurve(
        one.case.name, label, one.case.is_for_fitting, _digits(one.trivial), one.epochs, tuple(points)
    )


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def as_rows(curves: Sequence[LabelledCurve]) -> str:
    """JSON, a line a curve: name, label, half, trivial loss, epochs asked for, and the points as columns."""
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "label": one.label,
            "is_for_fitting": one.is_for_fitting,
            "trivial": one.trivial,
            "epochs": one.epochs,
            "epoch": [point.epoch for point in one.points],
            "train_loss": [point.train_loss for point in one.points],
            "validation_loss": [point.validation_loss for point in one.points],
        }
        for one in curves
    ]
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n"
