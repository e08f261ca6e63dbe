"""What one transaction of the recorder writes: blocks, epochs, events, and the job's row for those who poll."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from epochd.store import events, jobs, metrics
from epochd.store.database import Transaction
from epochd.store.events import NewEvent
from epochd.store.metrics import NewEpoch
from epochd.training.events import EpochCompleted, Event, IterationsCompleted
from epochd.worker.blocks import BlockBuffer
from epochd.worker.order import AttemptOrder

RATE_ITERATIONS = 200


@dataclass(slots=True)
class _Snapshot:
    """The job's row as it should read after this batch."""

    epoch: int = 0
    iteration: int = 0
    samples_per_second: float | None = None
    metrics: dict[str, float | None] | None = None
    early_stopping: dict[str, Any] | None = None
    diagnosis: dict[str, Any] | None = None


class Batch:
    """Gathers engine events until they are committed, and then forgets them; what fails to commit stays."""

    def __init__(self, order: AttemptOrder, device: str) -> None:
        self._order = order
        self._device = device
        self._started = time.monotonic()
        self._blocks = BlockBuffer()
        self._epochs: list[NewEpoch] = []
        self._events: list[NewEvent] = []
        self._now = _Snapshot()
        self._oldest: float | None = None

    def start_clock(self) -> None:
        """Count elapsed and remaining time from now on."""
        self._started = time.monotonic()

    def take(self, taken: list[Event], oldest: float | None) -> None:
        """Add engine events; ``oldest`` is when the first of them came, by the monotonic clock."""
        self._oldest = self._oldest or oldest
        for event in taken:
            if isinstance(event, IterationsCompleted):
                self._take_iterations(event)
            elif isinstance(event, EpochCompleted):
                self._take_epoch(event)

    def write(self, tx: Transaction) -> None:
        """Write everything not yet committed, in the caller's transaction."""
        order = self._order
        per_epoch = int(order.plan["iterations_per_epoch"])
        metrics.record_iterations(tx, order.attempt_id, per_epoch, self._blocks.unwritten())
        metrics.record_epochs(tx, order.attempt_id, self._epochs)
        jobs.record_progress(tx, order.job_number, attempt=order.attempt, **self._row())
        events.append_many(tx, order.job_number, self._events)

    def written(self) -> None:
        """Forget what has been committed."""
        self._blocks.written()
        self._epochs = []
        self._events = []
        self._oldest = None

    def _take_iterations(self, event: IterationsCompleted) -> None:
        self._blocks.add(event)
        self._now.iteration = event.last_iteration
        rates = event.samples_per_second[-RATE_ITERATIONS:]
        self._now.samples_per_second = round(float(np.nanmedian(rates)), 1) if len(rates) else None

    def _take_epoch(self, event: EpochCompleted) -> None:
        now = self._now
        stopping = event.early_stopping.as_dict() if event.early_stopping else None
        diagnosis = event.diagnosis.as_dict()
        self._epochs.append(
            NewEpoch(
                epoch=event.epoch,
                iteration=event.iteration,
                metrics=dict(event.metrics),
                learning_rate=event.learning_rate,
                seconds=event.seconds,
                is_best=event.is_best,
            )
        )
        self._announce("epoch.completed", _epoch_data(event), event.iteration)
        if stopping is not None:
            self._announce("early_stopping.updated", stopping, event.iteration)
        before = now.diagnosis["verdict"] if now.diagnosis else "undetermined"
        if before != diagnosis["verdict"]:
            self._announce("diagnosis.changed", diagnosis, event.iteration)
        now.epoch = event.epoch
        now.metrics = dict(event.metrics)
        now.early_stopping = stopping
        now.diagnosis = diagnosis

    def _announce(self, kind: str, data: dict[str, Any], iteration: int) -> None:
        self._events.append(NewEvent(kind, data, iteration))

    def _row(self) -> dict[str, Any]:
        now = self._now
        return {
            "epoch": now.epoch,
            "iteration": now.iteration,
            "device": self._device,
            "progress": self._progress(),
            "metrics": now.metrics,
            "early_stopping": now.early_stopping,
            "diagnosis": now.diagnosis,
        }

    def _progress(self) -> dict[str, Any]:
        elapsed = time.monotonic() - self._started
        left = int(self._order.plan["total_iterations"]) - self._now.iteration
        eta = elapsed / self._now.iteration * left if self._now.iteration else None
        lag = time.monotonic() - self._oldest if self._oldest is not None else 0.0
        return {
            "samples_per_second": self._now.samples_per_second,
            "elapsed_seconds": round(elapsed, 3),
            "eta_seconds": round(eta, 3) if eta is not None else None,
            "metrics_lag_seconds": round(lag, 3),
        }


def _epoch_data(event: EpochCompleted) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "iteration": event.iteration,
        **event.metrics,
        "learning_rate": event.learning_rate,
        "seconds": event.seconds,
        "is_best": event.is_best,
    }
