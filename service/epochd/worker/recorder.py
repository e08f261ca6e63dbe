"""Records what the engine yields, on a thread of its own: training never waits for the database.

It lives as long as the attempt, and writes even when there is nothing new: that is what keeps the lease.

Whatever has gathered since the last write goes into one transaction, which begins by renewing the attempt's lease: a
recorder whose attempt is no longer its own writes nothing, and learns in the same round trip whether to stop.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from epochd.errors import AttemptLostError, DatabaseUnavailableError
from epochd.store import attempts
from epochd.store.database import Database
from epochd.training.events import Event
from epochd.worker.batch import Batch
from epochd.worker.order import AttemptOrder

log = logging.getLogger("epochd.runner")

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 5.0
WRITE_EVERY_SECONDS = 0.2
"""Shortest time between two writes. The thread shares Python's lock with training: each write costs it milliseconds."""
CONTROL_SECONDS = 2.0
"""Longest time after which a cancellation is seen, however slow an iteration is."""


class Control:
    """What the recorder has learned from the database, read by the training loop."""

    def __init__(self) -> None:
        self.lost = False
        self.cancel_keep: str | None = None

    @property
    def stop(self) -> bool:
        """Whether training should end now."""
        return self.lost or self.cancel_keep is not None


class Recorder:
    """Use it as a context: leaving it writes all that is left, and raises ``AttemptLostError`` if it may not."""

    def __init__(self, db: Database, order: AttemptOrder, device: str) -> None:
        self.control = Control()
        self._db = db
        self._order = order
        self._batch = Batch(order, device)
        self._renew_every_seconds = min(order.lease_seconds / 3, CONTROL_SECONDS)
        self._changed = threading.Condition()
        self._events: list[Event] = []
        self._oldest: float | None = None
        self._leaving = False
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
        with self._changed:
            self._leaving = True
            self._changed.notify()
        self._thread.join()
        if self._crash is not None:
            raise self._crash
        if self.control.lost:
            raise AttemptLostError("The attempt was ended by somebody else.")

    def start_clock(self) -> None:
        """Count elapsed and remaining time from now on: training begins."""
        self._batch.start_clock()

    def record(self, event: Event) -> None:
        """Take an event; returns at once."""
        with self._changed:
            self._events.append(event)
            self._oldest = self._oldest or time.monotonic()
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._collect():
                self._write_patiently()
        except AttemptLostError:
            self.control.lost = True
        except BaseException as error:  # noqa: BLE001 - raised again in the training thread, at the end
            self._crash = error
            self.control.lost = True

    def _collect(self) -> bool:
        """Wait for events, or until the lease is due; return False when all is written and nothing will come."""
        with self._changed:
            # The first write comes at once: somebody waits for a sign of life. Leaving ends both waits.
            self._changed.wait_for(
                lambda: self._leaving, self._written_at + WRITE_EVERY_SECONDS - time.monotonic()
            )
            self._changed.wait_for(lambda: self._leaving or self._events, self._renew_every_seconds)
            if self._leaving and not self._events:
                return False
            taken, self._events = self._events, []
            oldest, self._oldest = self._oldest, None
        self._batch.take(taken, oldest)
        return True

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
            self._batch.write(tx)
        self._batch.written()
        self._written_at = time.monotonic()
        self.control.cancel_keep = control.cancel_keep
