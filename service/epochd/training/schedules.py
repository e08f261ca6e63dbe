"""Learning-rate schedules: iteration in, learning rate out. No torch.

Iterations are counted from 1, as everywhere. During the first ``warmup_iterations`` W the learning rate of
iteration i is i / W of the schedule's first value (linear warm-up: Goyal et al., 2017); then the schedule
begins. The step schedule alone counts from the start of training, so that it changes between two epochs,
never within one.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

from epochd.training.config import ScheduleConfig


class Schedule(ABC):
    """``schedule(i)`` is the learning rate of the update of iteration i."""

    def __init__(self, config: ScheduleConfig, learning_rate: float) -> None:
        self._config = config
        self._learning_rate = learning_rate

    def __call__(self, iteration: int) -> float:
        """The learning rate of ``iteration``, counted from 1; only ``epoch_completed`` may change it."""
        value = self._value(iteration)
        warmup = self._config.warmup_iterations
        return value * iteration / warmup if iteration < warmup else value

    @abstractmethod
    def _value(self, iteration: int) -> float:
        """The learning rate of ``iteration`` but for the warm-up; during it, the schedule's first value."""

    def _iterations_since_warmup(self, iteration: int) -> int:
        return max(iteration - 1 - self._config.warmup_iterations, 0)

    def epoch_completed(self, value: float) -> None:  # noqa: B027 - most schedules do not listen
        """Hear the monitored metric of a measured epoch; only reduce_on_plateau listens."""

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from; empty but for reduce_on_plateau."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most schedules have no state
        """Continue from what ``state_dict`` gave."""


class Constant(Schedule):
    """The learning rate stays what it is."""

    def _value(self, iteration: int) -> float:
        del iteration
        return self._learning_rate


class Cosine(Schedule):
    """Half a cosine to ``min_learning_rate`` (Loshchilov and Hutter, 2017), as torch's CosineAnnealingLR."""

    def __init__(self, config: ScheduleConfig, learning_rate: float, total_iterations: int) -> None:
        super().__init__(config, learning_rate)
        self._length = max(total_iterations - config.warmup_iterations, 1)

    def _value(self, iteration: int) -> float:
        fraction = min(self._iterations_since_warmup(iteration) / self._length, 1.0)
        return _cosine(self._learning_rate, self._config.min_learning_rate, fraction)


class Step(Schedule):
    """Times ``gamma`` after every ``step_epochs`` epochs, as torch's StepLR."""

    def __init__(self, config: ScheduleConfig, learning_rate: float, iterations_per_epoch: int) -> None:
        super().__init__(config, learning_rate)
        self._iterations = iterations_per_epoch * config.step_epochs

    def _value(self, iteration: int) -> float:
        return float(self._learning_rate * self._config.gamma ** ((iteration - 1) // self._iterations))


class OneCycle(Schedule):
    """Up and far down, each along half a cosine (Smith and Topin, 2019), as torch's OneCycleLR."""

    def __init__(self, config: ScheduleConfig, learning_rate: float, total_iterations: int) -> None:
        super().__init__(config, learning_rate)
        length = max(total_iterations - config.warmup_iterations, 1)
        self._peak = max(config.rise_fraction * length - 1, 0.0)
        self._fall = length - 1 - self._peak
        self._initial = learning_rate / config.div_factor
        self._final = self._initial / config.final_div_factor

    def _value(self, iteration: int) -> float:
        done = self._iterations_since_warmup(iteration)
        if done < self._peak:
            return _cosine(self._initial, self._learning_rate, done / self._peak)
        fraction = min((done - self._peak) / self._fall, 1.0) if self._fall > 0 else 0.0
        return _cosine(self._learning_rate, self._final, fraction)


class ReduceOnPlateau(Schedule):
    """Times ``factor`` when the metric has not improved for more than ``patience`` measured epochs.

    Never below ``min_learning_rate``. As torch's ReduceLROnPlateau with ``threshold_mode="abs"`` and
    ``eps=0``.
    """

    def __init__(self, config: ScheduleConfig, learning_rate: float) -> None:
        super().__init__(config, learning_rate)
        self._best = math.inf if config.mode == "min" else -math.inf
        self._bad_epochs = 0

    def _value(self, iteration: int) -> float:
        del iteration
        return self._learning_rate

    def epoch_completed(self, value: float) -> None:
        """Count an epoch without improvement, and reduce when there were too many; NaN is no improvement."""
        if self._improves(value):
            self._best, self._bad_epochs = value, 0
        else:
            self._bad_epochs += 1
        if self._bad_epochs > self._config.patience:
            self._reduce()

    def _improves(self, value: float) -> bool:
        if self._config.mode == "min":
            return value < self._best - self._config.min_delta
        return value > self._best + self._config.min_delta

    def _reduce(self) -> None:
        reduced = max(self._learning_rate * self._config.factor, self._config.min_learning_rate)
        # A learning rate that began below the floor must not be lifted to it.
        self._learning_rate = min(reduced, self._learning_rate)
        self._bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """The learning rate, the best value and the epochs since."""
        return {"learning_rate": self._learning_rate, "best": self._best, "bad_epochs": self._bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._learning_rate, self._best = state["learning_rate"], state["best"]
        self._bad_epochs = state["bad_epochs"]


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


def make_schedule(
    config: ScheduleConfig, learning_rate: float, *, iterations_per_epoch: int, total_iterations: int
) -> Schedule:
    """The schedule that ``config`` names, for a training of ``total_iterations``."""
    match config.name:
        case "constant":
            return Constant(config, learning_rate)
        case "cosine":
            return Cosine(config, learning_rate, total_iterations)
        case "step":
            return Step(config, learning_rate, iterations_per_epoch)
        case "one_cycle":
            return OneCycle(config, learning_rate, total_iterations)
        case "reduce_on_plateau":
            return ReduceOnPlateau(config, learning_rate)
