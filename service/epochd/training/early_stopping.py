"""Which epoch is the best, and when to stop because no better one comes. No torch."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from epochd.training.config import EarlyStoppingConfig, Mode
from epochd.training.variation import Variation

StoppingReason = Literal["early_stopped", "target_reached"]


@dataclass(frozen=True, slots=True)
class EarlyStoppingState:
    """What early stopping has seen and decided after an epoch.

    ``best_value`` and ``best_epoch`` are None until the metric had a finite value. ``message`` says in words
    how long there was no improvement, or why training stops; None while the metric improves. ``min_delta`` is the
    one that the last value was compared with; None while it is to be measured and cannot be yet.
    """

    monitor: str
    mode: Mode
    patience: int
    best_value: float | None = None
    best_epoch: int | None = None
    epochs_without_improvement: int = 0
    stopped: bool = False
    stopped_epoch: int | None = None
    message: str | None = None
    min_delta: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        # Not dataclasses.asdict: it would copy each value deeply, which takes long beside an epoch of a millisecond.
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def is_better(value: float, reference: float | None, mode: Mode, min_delta: float = 0.0) -> bool:
    """Whether ``value`` improves on ``reference`` by more than ``min_delta``; NaN and infinity never do.

    Any finite value improves on a reference of None.
    """
    if not math.isfinite(value):
        return False
    if reference is None:
        return True
    gain = reference - value if mode == "min" else value - reference
    return gain > min_delta


class BestEpoch:
    """The epoch with the best value of a metric, from ``start_epoch`` on; the earliest of equals."""

    def __init__(self, monitor: str, mode: Mode, start_epoch: int = 1) -> None:
        self.monitor = monitor
        self.mode: Mode = mode
        self.start_epoch = start_epoch
        self.epoch: int | None = None
        self.value: float | None = None

    def update(self, epoch: int, value: float | None) -> bool:
        """Look at one epoch's value (None: not measured); True when it is the best so far."""
        if epoch < self.start_epoch or value is None or not is_better(value, self.value, self.mode):
            return False
        self.epoch, self.value = epoch, value
        return True

    def starting(self, start_epoch: int) -> "BestEpoch":
        """The same with another ``start_epoch``; a best epoch before it is forgotten."""
        other = BestEpoch(self.monitor, self.mode, start_epoch)
        if self.epoch is not None and self.epoch >= start_epoch:
            other.epoch, other.value = self.epoch, self.value
        return other

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, as JSON-ready values."""
        return {"epoch": self.epoch, "value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self.epoch, self.value = state["epoch"], state["value"]


class EarlyStopping:
    """Watches one epoch metric and says when to stop.

    Patience is counted in epochs, whether or not they were validated: from the last epoch whose value
    improved on the reference by more than ``min_delta`` (the reference being the value at the last such
    improvement), or from ``start_epoch - 1`` when none did. A patience of 0 acts as 1. Training stops only at
    an epoch whose metric was measured; NaN and infinity count as measured, but never as an improvement.
    Nothing is counted before ``first_epoch``, the first that will be looked at.

    A ``min_delta`` of ``"auto"`` is measured: it is the gain over the reference that the metric's own variation
    exceeds in no more than 5 % of cases, see ``variation.Variation``; from the newest 64 values before the one that
    is judged, ``start_epoch`` or later. Until there are 9, any gain is an improvement. Real gains that are smaller
    than the noise count once they add up, for they are measured from the reference: within ``patience`` epochs they
    must come to some 3 standard deviations of the noise. The best epoch is the best of all, whatever ``min_delta``.
    """

    def __init__(self, config: EarlyStoppingConfig, first_epoch: int = 1) -> None:
        self.config = config
        self.stop_reason: StoppingReason | None = None
        self._best = BestEpoch(config.monitor, config.mode, config.start_epoch)
        self._variation = Variation()
        self._reference: float | None = None
        self._improved_epoch = max(config.start_epoch, first_epoch) - 1
        self._state = EarlyStoppingState(
            config.monitor, config.mode, config.patience, min_delta=self.min_delta
        )

    @property
    def best(self) -> BestEpoch:
        """The best epoch so far."""
        return self._best

    @property
    def min_delta(self) -> float | None:
        """What the next value is compared with; None: to be measured, from more values than there are yet."""
        told = self.config.min_delta
        return self._variation.least_gain if told == "auto" else told

    def earliest_stop(self, after: int) -> int:
        """The first epoch beyond ``after`` at which it may stop, if each is measured and nothing improves.

        With a ``target`` that is the first one looked at, which may reach it.
        """
        first = max(after + 1, self.config.start_epoch)
        if self.config.target is not None:
            return first
        return max(first, self._improved_epoch + max(self.config.patience, 1))

    def watches_same(self, config: EarlyStoppingConfig) -> bool:
        """Whether ``config`` is about the same metric and mode."""
        return (config.monitor, config.mode) == (self.config.monitor, self.config.mode)

    def amended(self, config: EarlyStoppingConfig, next_epoch: int) -> "EarlyStopping":
        """What watches under another ``config`` from ``next_epoch`` on.

        For the same metric and mode the best value, the reference and the epochs waited stay, but for what
        lies before the new ``start_epoch``. For another, all begins anew.
        """
        other = EarlyStopping(config, next_epoch)
        if not self.watches_same(config):
            return other
        other._best = self._best.starting(config.start_epoch)
        other._variation = self._variation.starting(config.start_epoch)
        if self._improved_epoch >= config.start_epoch:
            other._reference = self._reference
        other._improved_epoch = max(min(self._improved_epoch, next_epoch - 1), config.start_epoch - 1)
        return other

    @property
    def state(self) -> EarlyStoppingState:
        """The state after the last update."""
        return self._state

    def update(self, epoch: int, value: float | None) -> EarlyStoppingState:
        """Look at the value after ``epoch`` (counted from 1, ascending); None when it was not measured.

        Once stopped, further epochs change nothing.
        """
        if not self._state.stopped:
            min_delta = self.min_delta
            self.decide(epoch, value)
            self._state = self._describe(epoch, min_delta)
        return self._state

    def decide(self, epoch: int, value: float | None) -> StoppingReason | None:
        """Do what ``update`` does, but for ``state``, which stays as it is; give the reason to stop, if there is one.

        Not to be called once stopped.
        """
        self._best.update(epoch, value)
        if epoch >= self.config.start_epoch and value is not None:
            self._look(epoch, value)
        return self.stop_reason

    def _look(self, epoch: int, value: float) -> None:
        if self._improves(value):
            self._reference, self._improved_epoch = value, epoch
        self._variation.add(epoch, value)
        if self._reaches_target(value):
            self.stop_reason = "target_reached"
        elif epoch - self._improved_epoch >= max(self.config.patience, 1):
            self.stop_reason = "early_stopped"

    def _improves(self, value: float) -> bool:
        mode = self.config.mode
        # Most values are no gain at all, and need no measured min_delta.
        return is_better(value, self._reference, mode) and is_better(
            value, self._reference, mode, self.min_delta or 0.0
        )

    def _reaches_target(self, value: float) -> bool:
        target = self.config.target
        if target is None or not math.isfinite(value):
            return False
        return value <= target if self.config.mode == "min" else value >= target

    def _describe(self, epoch: int, min_delta: float | None) -> EarlyStoppingState:
        stopped = self.stop_reason is not None
        described = replace(
            self._state,
            best_value=self._best.value,
            best_epoch=self._best.epoch,
            epochs_without_improvement=max(epoch - self._improved_epoch, 0),
            stopped=stopped,
            stopped_epoch=epoch if stopped else None,
            min_delta=min_delta,
        )
        return replace(described, message=self._message(described))

    def _message(self, state: EarlyStoppingState) -> str | None:
        config = self.config
        if self.stop_reason == "target_reached":
            reached = f"{config.monitor} reached {_number(state.best_value)} at epoch {state.best_epoch}"
            return f"{reached}; target {_number(config.target)}"
        waited = state.epochs_without_improvement
        if waited == 0:
            return None
        measured = " (its noise)" if config.min_delta == "auto" else ""
        by = f" by more than {_number(state.min_delta)}{measured}" if state.min_delta else ""
        best = (
            f"best {_number(state.best_value)} at epoch {state.best_epoch}"
            if state.best_epoch
            else "no finite value yet"
        )
        said = f"{config.monitor} has not improved{by} for {_epochs(waited)}; {best}"
        left = max(config.patience, 1) - waited
        return said if state.stopped or left < 1 else f"{said}; stops after {left} more without improvement"

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from, as JSON-ready values."""
        return {
            "best": self._best.state_dict(),
            "reference": self._reference,
            "improved_epoch": self._improved_epoch,
            "recent": self._variation.state(),
            "stop_reason": self.stop_reason,
            "state": self._state.as_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave; earlier versions' says nothing of recent values."""
        self._best.load_state_dict(state["best"])
        self._variation = Variation.of_state(state.get("recent", ()))
        self._reference = state["reference"]
        self._improved_epoch = state["improved_epoch"]
        self.stop_reason = state["stop_reason"]
        self._state = EarlyStoppingState(**state["state"])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _epochs(count: int) -> str:
    return f"{count} epoch" if count == 1 else f"{count} epochs"
