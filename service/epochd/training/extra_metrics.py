"""What is measured on the validation split beside accuracy or R², when it is asked for: by torchmetrics.

Precision, recall and F1 are means over the classes, and so are the areas under the ROC and the precision-recall curve,
one class against all others; a class that the split does not have is left out of the areas and of the balanced
accuracy. ``mae`` and ``rmse`` are in the unit of the target, ``mape`` is a fraction of it.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final

import numpy.typing as npt
import torch
from torch import Tensor

from epochd.training.metric_names import EXTRA_METRICS

_CLASSES: Final[dict[str, str]] = {
    "balanced_accuracy": "StatScores",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1Score",
    "auroc": "AUROC",
    "average_precision": "AveragePrecision",
}


_BY_CLASS: Final = frozenset({"balanced_accuracy", "auroc", "average_precision"})
"""Averaged here: torchmetrics would count a class without a sample as 0."""


class ExtraMetrics:
    """Gathers the outputs for a split, and measures them once all came in.

    ``scale`` and ``mean``, (targets,), turn outputs and targets into the unit of the target; None leaves them.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        outputs: int,
        *,
        scale: npt.NDArray[Any] | None = None,
        mean: npt.NDArray[Any] | None = None,
        device: torch.device,
    ) -> None:
        self._metrics = {name: _make(name, outputs).to(device) for name in names}
        self._unit = (_on_device(scale, 1.0, device), _on_device(mean, 0.0, device))
        self._is_classification = not set(names) & {*EXTRA_METRICS["regression"]}
        self._samples = torch.zeros(outputs, dtype=torch.int64, device=device)
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in outputs (n, classes or targets), and class numbers (n,) or targets (n, targets)."""
        self._is_finite = self._is_finite & outputs.isfinite().all()
        if self._is_classification:
            given = outputs.softmax(dim=1), targets
            self._samples += torch.bincount(targets, minlength=len(self._samples))
        else:
            scale, mean = self._unit
            given = (outputs.double() * scale + mean).flatten(), (targets.double() * scale + mean).flatten()
        for metric in self._metrics.values():
            metric.update(*given)

    def values(self) -> dict[str, float]:
        """Each metric by its name; NaN where it has no value, or an output was not finite."""
        if not bool(self._is_finite):
            return dict.fromkeys(self._metrics, math.nan)
        with warnings.catch_warnings():
            # It warns of classes that the split does not have.
            warnings.simplefilter("ignore")
            return {name: self._value(name, metric) for name, metric in self._metrics.items()}

    def _value(self, name: str, metric: Any) -> float:
        value: Tensor = metric.compute()
        if name not in _BY_CLASS:
            return float(value)
        if name == "balanced_accuracy":
            value = value[:, 0] / value[:, 4]  # right ones by all samples of the class
        counted = self._samples > 0
        if name == "auroc":
            counted &= self._samples < self._samples.sum()
        return float(value[counted].mean())


def extra_metrics(
    names: tuple[str, ...],
    outputs: int,
    *,
    scale: npt.NDArray[Any] | None = None,
    mean: npt.NDArray[Any] | None = None,
    device: torch.device,
) -> Callable[[], ExtraMetrics] | None:
    """What makes empty metrics of these names; None when there are none, so that nothing is imported for them."""
    if not names:
        return None
    return partial(ExtraMetrics, names, outputs, scale=scale, mean=mean, device=device)


def _make(name: str, outputs: int) -> Any:
    # Imported when it is asked for: it takes two seconds.
    if name in _CLASSES:
        kind = getattr(import_module("torchmetrics.classification"), f"Multiclass{_CLASSES[name]}")
        average = "none" if name in _BY_CLASS else "macro"
        return kind(num_classes=outputs, average=average, validate_args=False)
    regression = import_module("torchmetrics.regression")
    made = {
        "mae": regression.MeanAbsoluteError,
        "rmse": partial(regression.MeanSquaredError, squared=False),
        "mape": regression.MeanAbsolutePercentageError,
    }
    return made[name]().set_dtype(torch.float64)


def _on_device(values: npt.NDArray[Any] | None, default: float, device: torch.device) -> Tensor:
    return torch.as_tensor(default if values is None else values, dtype=torch.float64, device=device)
