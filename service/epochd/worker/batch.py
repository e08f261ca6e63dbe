"""What one transaction of the recorder writes: blocks, epochs, events, and the job's row for those who poll."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochd.jobs.amend import with_amendment
from epochd.jobs.remedies import remedies
from epochd.store import attempts, jobs, metrics
from epochd.store.amendments import AmendmentRow
from epochd.store.database import Transaction
from epochd.store.metrics import NewEpoch
from epochd.training.events import AmendmentApplied, EpochCompleted, IterationsCompleted, MemoryReduced
from epochd.worker.announcements import Announcements
from epochd.worker.blocks import BlockBuffer
from epochd.worker.checkpointer import CheckpointFailed, CheckpointSaved
from epochd.worker.exporting import Exported
from epochd.worker.order import AttemptOrder
from epochd.worker.peak_memory import peak_memory
from epochd.worker.spool import Note

RATE_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Mini-batches are worked through ``size`` samples at a time; whether the model has ``batch_statistics``."""

    size: int
    batch_statistics: bool


@dataclass(frozen=True, slots=True)
class Began:
    """Training is about to begin, after iteration ``iteration`` and ``epoch`` completed epochs; 0 is from scratch.

    ``last_epoch`` is the newest completed one, ``elapsed_seconds`` what training took until then, ``restored`` what
    ``Restored.as_dict()`` says: None when there was no checkpoint.
    """

    epoch: int
    iteration: int
    last_epoch: EpochCompleted | None
    elapsed_seconds: float
    restored: dict[str, Any] | None
    micro_batches: MicroBatches | None = None


@dataclass(slots=True)
class _Snapshot:
    """The job's row as it should read after this batch."""

    epoch: int = 0
    iteration: int = 0
    rates: npt.NDArray[np.float32] | None = None
    micro_batches: MicroBatches | None = None
    last_epoch: EpochCompleted | None = None

    @property
    def samples_per_second(self) -> float | None:
        """The median of the newest iterations; None before the first."""
        return None if self.rates is None else round(float(np.nanmedian(self.rates)), 1)

    @property
    def verdict(self) -> str:
        """What is known of the curves."""
        return self.last_epoch.diagnosis.verdict if self.last_epoch is not None else "undetermined"

    def of_last_epoch(self) -> dict[str, Any]:
        """The columns that tell of the newest epoch."""
        last = self.last_epoch
        return {
            "metrics": dict(last.metrics) if last else None,
            "early_stopping": last.early_stopping.as_dict() if last and last.early_stopping else None,
            "diagnosis": last.diagnosis.as_dict() if last else None,
        }


class Batch:
    """Gathers notes until they are committed, and then forgets them; what fails to commit stays.

    Until training begins it writes nothing: the job shows what it showed before.
    """

    def __init__(self, order: AttemptOrder, device: str) -> None:
        self._order = order
        self._device = device
        self._per_epoch = int(order.plan["iterations_per_epoch"])
        self._total_iterations = int(order.plan["total_iterations"])
        self._spec = dict(order.spec)
        self._amendments: dict[int, AmendmentRow] = {}
        self.amend(order.amendments)
        self._began: Began | None = None
        self._is_begun_in_store = False
        self._began_at = time.monotonic()
        self._blocks = BlockBuffer()
        self._runs: list[IterationsCompleted] = []
        self._epochs: list[NewEpoch] = []
        self._announcements = Announcements(
            order.job_number, earlier=range(order.restarted_after + 1, order.attempt)
        )
        self._now = _Snapshot()
        self._oldest: float | None = None

    def amend(self, rows: Sequence[AmendmentRow]) -> None:
        """Learn of amendments that training will make."""
        for row in rows:
            self._amendments[row.number] = row
            if row.field == "epochs":
                self._total_iterations = self._per_epoch * int(row.value)

    def take(self, notes: Sequence[Note]) -> None:
        """Add notes, in their order."""
        for note in notes:
            self._oldest = self._oldest or note.at
            self._take(note)
        if self._runs:
            self._blocks.add(*self._runs)
            self._runs = []

    def _take(self, note: Note) -> None:
        match note.event:
            case IterationsCompleted():
                self._take_iterations(note.event)
            case EpochCompleted():
                self._take_epoch(note.event)
            case MemoryReduced():
                self._take_reduction(note.event)
            case AmendmentApplied():
                self._take_amendment(note.event)
            case CheckpointSaved() | CheckpointFailed():
                self._take_checkpoint(note.event)
            case Exported():
                self._announcements.add(note.event.kind, note.event.as_dict(), self._now.iteration)
            case Began():
                self._begin(note.event, note.at)

    @property
    def position(self) -> tuple[int, int] | None:
        """The newest epoch and iteration in it; None before training begins."""
        return (self._now.epoch, self._now.iteration) if self._began is not None else None

    def write(self, tx: Transaction) -> None:
        """Write everything not yet committed, in the caller's transaction."""
        if self._began is None:
            return
        order = self._order
        if not self._is_begun_in_store:
            attempts.begin(tx, order.attempt_id, self._began.iteration + 1, self._began.restored)
        blocks, levels = self._blocks.unwritten(), self._blocks.unwritten_levels()
        metrics.record_iterations(tx, order.attempt_id, self._per_epoch, blocks, levels)
        metrics.record_epochs(tx, order.attempt_id, self._epochs)
        if not self._only_brings_out_weights():
            jobs.record_progress(tx, order.job_number, attempt=order.attempt, **self._row())
        self._announcements.write(tx, self._epochs)

    def _only_brings_out_weights(self) -> bool:
        # Its checkpoint may be older than what is recorded, and the job goes on showing that.
        assert self._began is not None, "nothing is written before training begins"
        return self._order.cancel_keep is not None and self._now.iteration == self._began.iteration

    def written(self) -> None:
        """Forget what has been committed."""
        self._is_begun_in_store = self._began is not None
        self._blocks.written()
        self._epochs = []
        self._announcements.written()
        self._oldest = None

    def _begin(self, began: Began, at: float) -> None:
        self._began, self._began_at = began, at
        self._blocks = BlockBuffer(after=began.iteration)
        for row in self._amendments.values():
            if row.iteration is not None and row.iteration <= began.iteration:
                self._put_in_force(row)
        self._now = _Snapshot(began.epoch, began.iteration, micro_batches=began.micro_batches)
        if began.last_epoch is not None:
            self._now.last_epoch = began.last_epoch
        if began.restored is not None:
            self._announcements.add("checkpoint.restored", self._restored(began.restored), began.iteration)

    def _restored(self, restored: dict[str, Any]) -> dict[str, Any]:
        told = {"saved_by_attempt" if name == "attempt" else name: value for name, value in restored.items()}
        return {"attempt": self._order.attempt, **told}

    def _take_iterations(self, event: IterationsCompleted) -> None:
        self._runs.append(event)
        self._now.iteration = event.last_iteration
        self._now.rates = event.samples_per_second[-RATE_ITERATIONS:]

    def _take_epoch(self, event: EpochCompleted) -> None:
        before = self._now.verdict
        self._now.epoch, self._now.last_epoch = event.epoch, event
        metrics = dict(event.metrics)
        new = NewEpoch(
            event.epoch, event.iteration, metrics, event.learning_rate, event.seconds, event.is_best
        )
        self._epochs.append(new)
        self._announce_epoch(event, before)

    def _announce_epoch(self, event: EpochCompleted, verdict_before: str) -> None:
        add, iteration, epoch = self._announcements.add, event.iteration, event.epoch
        add("epoch.completed", _epoch_data(event), iteration, epoch=epoch)
        if event.early_stopping is not None:
            # As it is: to make a dict of it takes longer than to write it.
            add("early_stopping.updated", event.early_stopping, iteration, epoch=epoch)
        if verdict_before != event.diagnosis.verdict:
            add("diagnosis.changed", self._diagnosis(event.diagnosis.as_dict()), iteration, epoch=epoch)

    def _diagnosis(self, found: dict[str, Any]) -> dict[str, Any]:
        train_samples = int(self._order.plan["train_samples"])
        return {**found, "suggestions": remedies(found, self._spec, train_samples=train_samples)}

    def _take_amendment(self, event: AmendmentApplied) -> None:
        row = self._amendments[event.number]
        self._put_in_force(row)
        self._announcements.add_amendment(event, row.changes)

    def _put_in_force(self, row: AmendmentRow) -> None:
        self._spec = with_amendment(self._spec, row.field, row.value)

    def _take_reduction(self, event: MemoryReduced) -> None:
        self._now.micro_batches = MicroBatches(event.micro_batch_size, event.batch_statistics)
        self._announcements.add("memory.reduced", event.as_dict(), event.iteration)

    def _take_checkpoint(self, report: CheckpointSaved | CheckpointFailed) -> None:
        kind = "checkpoint.saved" if isinstance(report, CheckpointSaved) else "checkpoint.failed"
        self._announcements.add(kind, report.as_dict(), self._now.iteration)

    def _row(self) -> dict[str, Any]:
        now = self._now
        return {
            "epoch": now.epoch,
            "iteration": now.iteration,
            "device": self._device,
            "progress": self._progress(),
            **now.of_last_epoch(),
        }

    def _progress(self) -> dict[str, Any]:
        assert self._began is not None, "nothing is written before training begins"
        moment = time.monotonic()
        lag = moment - self._oldest if self._oldest is not None else 0.0
        return {
            "iteration": self._now.iteration,
            "samples_per_second": self._now.samples_per_second,
            "elapsed_seconds": round(self._began.elapsed_seconds + moment - self._began_at, 3),
            "eta_seconds": self._eta_seconds(self._began, moment - self._began_at),
            "metrics_lag_seconds": round(lag, 3),
            "micro_batches": self._now.micro_batches and asdict(self._now.micro_batches),
            "peak_memory_bytes": peak_memory(self._device),
        }

    def _eta_seconds(self, began: Began, seconds: float) -> float | None:
        # At this attempt's own pace: an earlier one may have run elsewhere.
        done = self._now.iteration - began.iteration
        left = max(self._total_iterations - self._now.iteration, 0)
        if not left:
            return 0.0
        return round(seconds / done * left, 3) if done else None


def _epoch_data(event: EpochCompleted) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "iteration": event.iteration,
        **event.metrics,
        "learning_rate": event.learning_rate,
        "seconds": event.seconds,
        "is_best": event.is_best,
    }
