"""Finds attempts whose lease has expired, whoever held them, and lets their jobs go on."""

import logging

from epochd.errors import DatabaseUnavailableError
from epochd.jobs.complete import lose
from epochd.store import attempts
from epochd.store.attempts import AttemptRow
from epochd.store.database import Database
from epochd.worker.loop import Loop

log = logging.getLogger("epochd.worker")


class Reaper(Loop):
    """Every worker runs one; that several find the same attempt does no harm, for its end is guarded."""

    def __init__(self, db: Database, *, lease_seconds: float, retry_delay_seconds: float) -> None:
        super().__init__("reaper")
        self._db = db
        self._lease_seconds = lease_seconds
        self._suspects: set[int] = set()
        self._retry_delay_seconds = retry_delay_seconds

    def tick(self) -> None:
        """End every attempt that was not renewed in time, although it could have been.

        It was expired at the last tick, and the database took writes then: since that moment, whoever lives has had
        the time to renew. After an outage this gives everybody that time.
        """
        try:
            with self._db.write() as tx:
                expired = {attempt.id: attempt for attempt in attempts.expired(tx, prove_writable=True)}
            for attempt_id in expired.keys() & self._suspects:
                self._reap(expired[attempt_id])
        except DatabaseUnavailableError:
            self._suspects = set()
            raise
        self._suspects = set(expired)
        self.stopping.wait(self._lease_seconds / 3)

    def _reap(self, attempt: AttemptRow) -> None:
        reason = f"Worker {attempt.worker} did not renew its lease in time."
        delay = self._retry_delay_seconds
        if lose(self._db, attempt.id, reason, retry_delay_seconds=delay, only_expired=True):
            log.warning(
                "attempt %s of job number %s was lost: %s", attempt.number, attempt.job_number, reason
            )
