"""What the engine yields. All numbers are plain Python or numpy: no tensor leaves the engine."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from epochd.training.diagnosis import Diagnosis
from epochd.training.early_stopping import EarlyStoppingState

Float32Array = npt.NDArray[np.float32]
StopReason = Literal["completed", "early_stopped", "target_reached", "time_limit"]


@dataclass(frozen=True, slots=True)
class IterationsCompleted:
    """A block of consecutive iterations of one epoch, as columns of equal length n >= 1.

    Iterations are counted from 1 across epochs; the block is ``first_iteration … first_iteration + n - 1``.
    ``gradient_norm`` is the L2 norm of the whole gradient before clipping.
    """

    epoch: int
    first_iteration: int
    train_loss: Float32Array
    learning_rate: Float32Array
    gradient_norm: Float32Array
    samples_per_second: Float32Array

    @property
    def last_iteration(self) -> int:
        """The number of the block's last iteration."""
        return self.first_iteration + len(self.train_loss) - 1


@dataclass(frozen=True, slots=True)
class EpochCompleted:
    """One pass over the training samples, and what validation said after it.

    ``metrics`` maps ``<split>_<metric>`` to a float, or None where it has no value (not validated in this
    epoch, or not finite). ``train_loss`` is the mean over the epoch's mini-batches, weighted by their sizes,
    and ``train_accuracy`` or ``train_r2`` that of their outputs, all taken as the weights changed. ``is_best``
    is True when this epoch is the best so far by the monitored metric.
    """

    epoch: int
    iteration: int
    metrics: Mapping[str, float | None]
    learning_rate: float
    seconds: float
    is_best: bool
    early_stopping: EarlyStoppingState | None
    diagnosis: Diagnosis

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        values: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        values["metrics"] = dict(self.metrics)
        values["early_stopping"] = self.early_stopping and self.early_stopping.as_dict()
        values["diagnosis"] = self.diagnosis.as_dict()
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EpochCompleted":
        """Make it again from what ``as_dict`` gave."""
        stopping = values["early_stopping"]
        early_stopping = None if stopping is None else EarlyStoppingState(**stopping)
        diagnosis = Diagnosis.from_dict(values["diagnosis"])
        return cls(**{**values, "early_stopping": early_stopping, "diagnosis": diagnosis})


@dataclass(frozen=True, slots=True)
class AmendmentApplied:
    """Amendment ``number`` took effect after ``iteration`` of ``epoch``; both are 0 before the first iteration.

    It comes before whatever is trained or decided under it. After a resumption, one that is in force already
    is announced again if the caller did not know where it took effect.
    """

    number: int
    epoch: int
    iteration: int


@dataclass(frozen=True, slots=True)
class MemoryReduced:
    """A mini-batch did not fit into memory: from ``iteration`` on, at most ``micro_batch_size`` samples go together.

    That iteration is done, with the same weight update that the whole mini-batch would have made; where the model
    has ``batch_statistics``, only nearly so. A mini-batch of ``batch_size`` becomes so many ``micro_batches``.
    """

    epoch: int
    iteration: int
    batch_size: int
    micro_batch_size: int
    micro_batches: int
    batch_statistics: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event: why training ended, and after which epoch and iteration."""

    reason: StopReason
    epoch: int
    iteration: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which weights are kept, and why; ``metric`` and ``value`` are None when no metric chose them."""

    epoch: int
    iteration: int
    metric: str | None
    value: float | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "epoch": self.epoch,
            "iteration": self.iteration,
            "metric": self.metric,
            "value": self.value,
            "reason": self.reason,
        }


Event = IterationsCompleted | EpochCompleted | AmendmentApplied | MemoryReduced | Stopped
