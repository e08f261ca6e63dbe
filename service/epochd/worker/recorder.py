"""Records what the engine yields, on a thread of its own: training never waits for the database.

It lives as long as the attempt, and writes even when there is nothing new: that is what keeps the lease.

Whatever has gathered since the last write goes into one transaction, which begins by renewing the attempt's lease: a
recorder whose attempt is no longer its own writes nothing, and learns in the same round trip what is asked of it.
After the database was away it catches up in portions, so that each transaction stays small.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Any, Self

from epochd.errors import AttemptLostError, DatabaseUnavailableError
from epochd.store import amendments, attempts
from epochd.store.amendments import AmendmentRow
from epochd.store.database import Database
from epochd.training.events import Event
from epochd.training.trainer import Trainer
from epochd.worker.batch import Batch, Began, MicroBatches
from epochd.worker.checkpointer import CheckpointFailed, CheckpointSaved
from epochd.worker.control import Control
from epochd.worker.exporting import Exported
from epochd.worker.order import AttemptOrder
from epochd.worker.spool import Note, Spool

log = logging.getLogger("epochd.runner")

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 5.0
WRITE_EVERY_SECONDS = 0.2
MAX_WRITE_EVERY_SECONDS = 0.5
"""Shortest time between two writes. The thread shares Python's lock with training: each write costs it milliseconds,
so that the time grows up to this with what the last one cost."""
BUSY_NOTES = 50
BUSY_WRITE_EVERY_SECONDS = 0.8
"""The same after a write of more notes than that: of epochs so short, people see every one within a second."""
COST_FACTOR = 200
"""The pause before a write is at least so many times the CPU seconds of the last one."""
CONTROL_SECONDS = 2.0
"""Longest time after which a cancellation is seen, however slow an iteration is."""
PORTION_NOTES = 2000
PORTION_BYTES = 8 * 2**20
"""At most so much goes into one transaction; who has more does not pause. So many notes of short epochs fit."""


class Recorder:
    """Use it as a context: leaving it writes all that is left, and raises ``AttemptLostError`` if it may not.

    ``recorded`` is (epoch, iteration), the newest that this attempt knows to be in the database; (0, 0) until it has
    begun there.
    """

    def __init__(self, db: Database, order: AttemptOrder, device: str) -> None:
        self.control = Control(order.cancel_keep)
        self.recorded = (0, 0)
        self._db = db
        self._order = order
        self._batch = Batch(order, device)
        self._amendments_known = max((row.number for row in order.amendments), default=0)
        self._renew_every_seconds = min(order.lease_seconds / 3, CONTROL_SECONDS)
        self._spool = Spool(order.folders.spool)
        self._spool_lock = threading.Lock()
        self._news = threading.Event()  # there are notes, or none will come any more
        self._hurry = threading.Event()
        self._leaving = False
        self._pause_seconds = WRITE_EVERY_SECONDS
        self._write_number = 1
        self._written_at = -WRITE_EVERY_SECONDS
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left and end the thread."""
        with self._spool_lock:
            self._leaving = True
            self._hurry.set()
            self._news.set()
        self._thread.join()
        self._spool.close()
        if self._crash is not None:
            raise self._crash
        if self.control.lost:
            raise AttemptLostError("The attempt was ended by somebody else.")

    def begin(self, trainer: Trainer, restored: dict[str, Any] | None) -> None:
        """Let training begin where the trainer stands; time is counted from now on.

        Call it once, before the first ``record``. Until then the job shows what it showed before.
        """
        self.record(
            Began(
                epoch=trainer.epochs_completed,
                iteration=trainer.position.iteration,
                last_epoch=trainer.last_epoch,
                elapsed_seconds=trainer.elapsed_seconds,
                restored=restored,
                micro_batches=_micro_batches(trainer),
            )
        )

    def record(self, event: Event | Began | CheckpointSaved | CheckpointFailed | Exported) -> None:
        """Take an event; returns at once. Any thread may call it."""
        note = Note(time.monotonic(), event)
        with self._spool_lock:
            self._spool.append(note)
            if not self._news.is_set():
                self._news.set()
            if self._spool.exceeds(PORTION_NOTES, PORTION_BYTES):
                self._hurry.set()

    def _run(self) -> None:
        try:
            while (notes := self._collect()) is not None:
                began = time.thread_time()
                self._batch.take(notes)
                self._write_patiently()
                self._rest_after(time.thread_time() - began, len(notes))
        except AttemptLostError:
            self.control.lost = True
        except BaseException as error:  # noqa: BLE001 - raised again in the training thread, at the end
            self._crash = error
            self.control.lost = True

    def _collect(self) -> list[Note] | None:
        """Wait for events, or until the lease is due; None when all is written and nothing will come."""
        # The first write comes at once: somebody waits for a sign of life.
        self._hurry.wait(self._written_at + self._pause_seconds - time.monotonic())
        self._news.wait(self._renew_every_seconds)
        with self._spool_lock:
            if self._leaving and not len(self._spool):
                return None
            taken = self._spool.take(PORTION_NOTES, PORTION_BYTES)
            if not self._leaving:
                self._rest()
        return taken

    def _rest(self) -> None:
        """Have the next round wait, unless there is more than it can take."""
        if not self._spool.exceeds(PORTION_NOTES, PORTION_BYTES):
            self._hurry.clear()
        if not len(self._spool):
            self._news.clear()

    def _rest_after(self, cpu_seconds: float, notes: int) -> None:
        longest = BUSY_WRITE_EVERY_SECONDS if notes > BUSY_NOTES else MAX_WRITE_EVERY_SECONDS
        self._pause_seconds = min(max(COST_FACTOR * cpu_seconds, WRITE_EVERY_SECONDS), longest)

    def _write_patiently(self) -> None:
        """Write the batch; while the database is away, wait, keep everything, and try again."""
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                self._write()
            except DatabaseUnavailableError as error:
                log.warning("%s: metrics wait for the database: %s", self._order.job_id, error.message)
                time.sleep(delay)
                # Twice within the time that the reaper leaves after an outage.
                delay = min(delay * 2, MAX_RETRY_SECONDS, self._order.lease_seconds / 6)
            else:
                return

    def _write(self) -> None:
        with self._db.write() as tx:
            control = attempts.renew(tx, self._order.attempt_id, self._order.lease_seconds)
            # A commit whose answer was lost may have been made: the same batch comes again under the same number.
            if attempts.first_time(tx, self._order.attempt_id, self._write_number):
                self._batch.write(tx)
            asked: list[AmendmentRow] = []
            if control.amendments > self._amendments_known:
                asked = amendments.of_job(tx, self._order.job_number, self._amendments_known)
        self._written(control, asked)

    def _written(self, control: attempts.Control, asked: list[AmendmentRow]) -> None:
        self._write_number += 1
        self._batch.written()
        self._written_at = time.monotonic()
        self.recorded = self._batch.position or self.recorded
        if asked:
            self._amendments_known = asked[-1].number
            self._batch.amend(asked)
        self.control.heard(control, asked)


def _micro_batches(trainer: Trainer) -> MicroBatches | None:
    restored = trainer.micro_batches
    return None if restored.size is None else MicroBatches(restored.size, restored.has_batch_statistics)
