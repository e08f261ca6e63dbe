"""Epoch metrics, gathered over mini-batches without a synchronisation until the value is asked for."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from epochd.training.config import Task


class Metric(ABC):
    """Gathers outputs and targets; sums live on the device, and every sample weighs the same."""

    @abstractmethod
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in the outputs (n, classes or targets) for n samples."""

    @abstractmethod
    def value(self) -> float:
        """The metric of all that came in; NaN when it has no value."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The tensors and numbers that ``load_state_dict`` continues from."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""


class Accuracy(Metric):
    """The fraction of samples whose largest output is that of their class; NaN is never right."""

    def __init__(self) -> None:
        self._right: Tensor | int = 0
        self._samples = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in logits (n, classes) and class numbers (n,)."""
        largest, predicted = outputs.max(dim=1)
        right = ((predicted == targets) & ~largest.isnan()).sum()
        self._right = self._right + right
        self._samples += len(targets)

    def value(self) -> float:
        """Right samples by all samples; NaN without samples."""
        return int(self._right) / self._samples if self._samples else math.nan

    def state_dict(self) -> dict[str, Any]:
        """How many samples, and how many of them are right."""
        return {"right": int(self._right), "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._right, self._samples = state["right"], state["samples"]


class R2(Metric):
    """The coefficient of determination 1 - SS_residual / SS_total, averaged over the targets.

    A target that is constant over the samples has no R² and is left out; NaN when none is left. Sums are
    float64, of distances from ``center`` (targets,), the mean of the training targets, so that large means
    do not cancel.
    """

    def __init__(self, center: Tensor) -> None:
        self._center = center.double()
        self._residual = torch.zeros_like(self._center)
        self._sum = torch.zeros_like(self._center)
        self._square = torch.zeros_like(self._center)
        self._samples = 0

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in predictions and targets, both (n, targets)."""
        exact = targets.double()
        distance = exact - self._center
        self._residual += (exact - outputs.double()).square().sum(dim=0)
        self._sum += distance.sum(dim=0)
        self._square += distance.square().sum(dim=0)
        self._samples += len(targets)

    def value(self) -> float:
        """The mean R² of the targets that vary."""
        if self._samples == 0:
            return math.nan
        total = self._square - self._sum.square() / self._samples
        # A constant target leaves rounding errors of this order, not zero.
        varies = total > self._square * 1e-12
        scores = 1 - self._residual[varies] / total[varies]
        return scores.mean().item() if len(scores) else math.nan

    def state_dict(self) -> dict[str, Any]:
        """The three sums, and how many samples they are over."""
        sums = {"residual": self._residual, "sum": self._sum, "square": self._square}
        return {**sums, "samples": self._samples}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._residual.copy_(state["residual"])
        self._sum.copy_(state["sum"])
        self._square.copy_(state["square"])
        self._samples = state["samples"]


def metric_factory(task: Task, train_targets: Tensor) -> Callable[[], Metric]:
    """What makes empty metrics for the task; ``train_targets`` are all targets of the training split."""
    if task == "classification":
        return Accuracy
    center = train_targets.double().mean(dim=0)
    return lambda: R2(center)
