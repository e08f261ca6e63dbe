"""Saves checkpoints on a thread of its own: training never waits for the disk."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import torch

from epochd.contract.base import rfc3339
from epochd.contract.spec import Checkpoint
from epochd.errors import InfrastructureError, OutOfMemoryError
from epochd.training import device as devices
from epochd.training.checkpoint import (
    CheckpointFolder,
    CheckpointHeader,
    CheckpointReason,
    Progress,
    SavedCheckpoint,
)
from epochd.training.events import EpochCompleted, Event, IterationsCompleted
from epochd.training.trainer import Trainer
from epochd.version import __version__
from epochd.worker.memory import require_memory_for_checkpoint
from epochd.worker.restore import Restored

log = logging.getLogger("epochd.runner")

MIN_SECONDS = 1.0
"""Shortest time between two checkpoints that nobody asked for: epochs of milliseconds share one."""
COST_FACTOR = 20.0
"""Between two of them, training goes on for so many times what the last one cost it: at most 5 % of its time."""
RETRY_SECONDS = 10.0
"""Shortest time after a checkpoint that could not be written."""


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What the headers of all of an attempt's checkpoints share; ``restored`` is what ``restore`` gave."""

    job_id: str
    attempt: int
    fingerprint: str
    threads: int
    restored: Restored | None = None

    def trained_by(self, iteration: int) -> int:
        """Which attempt trained this iteration: this one, unless it is the one that it began after."""
        began = self.began
        if began.trained_by is None or iteration > began.iteration:
            return self.attempt
        return began.trained_by

    @property
    def began(self) -> Restored:
        """Where the attempt began."""
        return self.restored or Restored()


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint is on disk: after so many completed epochs and iterations, in a file of so many bytes."""

    epoch: int
    iteration: int
    bytes: int
    reason: CheckpointReason
    is_best: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """Checkpoints cannot be written: ``code`` for programs (``disk_full``, …), ``message`` for people."""

    code: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return asdict(self)


Report = Callable[[CheckpointSaved | CheckpointFailed], None]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A state that waits for the disk."""

    header: CheckpointHeader
    state: Mapping[str, Any]


class Checkpointer:
    """Use it as a context around the training loop; ``look`` after each event, ``save_now`` once the loop is left.

    A checkpoint is taken at the end of every ``every_epochs``-th epoch, and within an epoch when ``every_seconds``
    have passed since the last. Epochs shorter than MIN_SECONDS share one, and so do those in which copying the
    state would cost training more than a twentieth of its time: what is lost by that is trained again.

    The training thread only copies the state, and the checkpointer's thread writes the copy; none is taken while one
    is being written, so that one copy exists at most. After each write it prunes the folder, for which
    ``recorded`` tells (epoch, iteration) of the newest that is recorded. When a write fails, training goes on;
    that is reported once, until one succeeds. ``recorded`` and ``report`` are called on the checkpointer's thread,
    ``report`` also on the caller's; what ``save_now`` saved has been reported when it returns.

    Leaving the context without an exception drops what still waits: the training has ended, or ``save_now`` has saved
    it. With an exception, it is written: a later attempt may go on from there. A write under way is always finished.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        policy: Checkpoint,
        facts: HeaderFacts,
        *,
        recorded: Callable[[], tuple[int, int]],
        report: Report,
    ) -> None:
        self._folder = folder
        self._policy = policy
        self._facts = facts
        self._recorded = recorded
        self._report = report
        self._changed = threading.Condition()
        self._waiting: _Taken | None = None
        self._in_work: _Taken | None = None
        self._written: CheckpointHeader | None = None
        self._leaving = False
        self._is_failing = False
        self._taken_at = time.monotonic()
        self._cost = 0.0
        self._thread = threading.Thread(target=self._run, name="checkpointer", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread, and the clock: the first checkpoint counts from here."""
        self._taken_at = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread once it has written what it is to write."""
        with self._changed:
            self._leaving = True
            if error is None:
                self._waiting = None
            self._changed.notify_all()
        self._thread.join()

    def look(self, event: Event, trainer: Trainer) -> None:
        """Take a checkpoint if one is due after this event. Never waits for the disk, and never raises."""
        reason = self._due(event, trainer)
        if reason is not None:
            self._take(reason, trainer)

    def save_now(self, reason: CheckpointReason, trainer: Trainer) -> bool:
        """Save what was trained, and wait until it is on disk; False when that was not possible.

        True, too, when nothing was trained. Call it once ``trainer.run()`` has been left.
        """
        if not trainer.position.iteration:
            return True
        with self._changed:
            self._changed.wait_for(self._is_idle)
        taken = self._take(reason, trainer)
        if taken is None:
            return False
        with self._changed:
            self._changed.wait_for(lambda: taken is not self._waiting and taken is not self._in_work)
            return self._written is taken.header

    def _due(self, event: Event, trainer: Trainer) -> CheckpointReason | None:
        waited = time.monotonic() - self._taken_at
        if not self._is_idle() or waited < max(
            MIN_SECONDS, COST_FACTOR * self._cost, RETRY_SECONDS * self._is_failing
        ):
            return None
        if isinstance(event, EpochCompleted) and event.epoch % self._policy.every_epochs == 0:
            return "epoch"
        if waited < self._policy.every_seconds:
            return None
        return "time" if _is_between(event, trainer) else None

    def _take(self, reason: CheckpointReason, trainer: Trainer) -> _Taken | None:
        """Copy the state for the thread; None when there is none that may be resumed from, or no memory for it."""
        if not trainer.is_resumable:
            return None
        began = time.monotonic()
        try:
            require_memory_for_checkpoint(trainer.config)
            with devices.memory_errors():
                taken = _Taken(self._header(reason, trainer), trainer.state_dict())
        except OutOfMemoryError as error:
            self._failed(CheckpointFailed(error.code, error.message), reason)
            taken = None
        self._taken_at = time.monotonic()
        self._cost = self._taken_at - began
        if taken is not None:
            self._hand_over(taken)
        return taken

    def _hand_over(self, taken: _Taken) -> None:
        with self._changed:
            self._waiting = taken
            self._changed.notify_all()

    def _is_idle(self) -> bool:
        return self._waiting is None and self._in_work is None

    def _header(self, reason: CheckpointReason, trainer: Trainer) -> CheckpointHeader:
        facts, iteration = self._facts, trainer.position.iteration
        return CheckpointHeader(
            job_id=facts.job_id,
            attempt=facts.attempt,
            trained_by=facts.trained_by(iteration),
            epoch=trainer.epochs_completed,
            iteration=iteration,
            is_best=_is_best(trainer),
            threads=facts.threads,
            fingerprint=facts.fingerprint,
            saved_at=rfc3339(datetime.now(UTC)),
            reason=reason,
            versions={"epochd": __version__, "torch": torch.__version__},
        )

    def _run(self) -> None:
        while self._next() is not None:
            try:
                self._write()
            except Exception:
                # In reporting or pruning. Whoever waits in save_now must not wait for ever.
                log.exception("%s: the checkpointer goes on after an error", self._facts.job_id)
            with self._changed:
                self._in_work = None
                self._changed.notify_all()

    def _next(self) -> _Taken | None:
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._waiting is not None)
            self._in_work, self._waiting = self._waiting, None
            return self._in_work

    def _write(self) -> None:
        taken = self._in_work
        assert taken is not None, "there is one to be written"
        try:
            saved = self._folder.save(taken.header, taken.state)
        except InfrastructureError as error:
            self._failed(CheckpointFailed(error.code, error.message), taken.header.reason)
        except Exception:
            log.exception("%s: a checkpoint could not be written", self._facts.job_id)
            message = "Unexpected error while a checkpoint was written; the worker's log has the details."
            self._failed(CheckpointFailed("internal_error", message), taken.header.reason)
        else:
            self._written = taken.header
            self._saved(saved)

    def _saved(self, saved: SavedCheckpoint) -> None:
        self._is_failing = False
        header = saved.header
        self._report(
            CheckpointSaved(header.epoch, header.iteration, saved.bytes, header.reason, header.is_best)
        )
        self._folder.prune(self._policy.keep, self._progress())

    def _progress(self) -> Progress:
        began = self._facts.began
        epoch, iteration = self._recorded()
        return Progress(
            attempt=self._facts.attempt,
            origin=(began.iteration, began.attempt or 0),
            epoch=epoch,
            iteration=iteration,
        )

    def _failed(self, failure: CheckpointFailed, reason: CheckpointReason) -> None:
        # Said once while training goes on; but whoever asked for this one must hear of it.
        if not self._is_failing or reason not in {"epoch", "time"}:
            log.warning("%s: a checkpoint could not be saved: %s", self._facts.job_id, failure.message)
            self._report(failure)
        self._is_failing = True


def _is_between(event: Event, trainer: Trainer) -> bool:
    """Whether a checkpoint by time may be taken: not right before an epoch's end, which has the same iteration."""
    if isinstance(event, IterationsCompleted):
        return event.last_iteration % trainer.plan.iterations_per_epoch != 0
    return isinstance(event, EpochCompleted)


def _is_best(trainer: Trainer) -> bool:
    last = trainer.last_epoch
    return (
        last is not None
        and last.is_best
        and (last.epoch, last.iteration) == (trainer.epochs_completed, trainer.position.iteration)
    )
