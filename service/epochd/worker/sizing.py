"""Finds the batch size of a job that leaves it open, before its attempt is launched."""

import logging
import threading
from typing import Final

from epochd.contract.batch_size import DEFAULT_SECONDS
from epochd.errors import AttemptLostError, DatabaseUnavailableError, InvalidRequestError, TrainingError
from epochd.jobs import auto_batch_size, complete
from epochd.jobs.complete import Outcome, error_dict
from epochd.store import attempts
from epochd.store.attempts import Control
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.worker.follower import Conclude, SlotConfig
from epochd.worker.measurer import Found, Measurer

log = logging.getLogger("epochd.worker")

SECONDS: Final = DEFAULT_SECONDS
"""To measure for, as ``POST /v1/batch-size`` does."""
RETRY_SECONDS: Final = 1.0


class Sizing:
    """Measures on behalf of jobs that the slot has claimed."""

    def __init__(
        self, db: Database, measurer: Measurer, config: SlotConfig, stopping: threading.Event
    ) -> None:
        self._db = db
        self._measurer = measurer
        self._config = config
        self._stopping = stopping

    def sized(self, taken: Claim) -> Claim | Conclude:
        """Give a claim whose spec has a number; or what is to be recorded, when there is nothing to launch.

        While it measures, the lease is renewed, and a cancellation, a pause and the worker's shutdown are heard.
        """
        if not auto_batch_size.is_open(taken.job):
            return taken
        try:
            return self._measured(taken)
        except AttemptLostError:
            log.warning("attempt %s was lost while its batch size was measured", taken.attempt_id)
            return lambda: False
        except TrainingError as error:
            told = error_dict(error)
        except InvalidRequestError as error:
            told = _contradiction(error)
        return self._ended(taken, Outcome("failed", "failed", error=told))

    def _measured(self, taken: Claim) -> Claim | Conclude:
        if taken.job.cancel_keep is not None:
            return auto_batch_size.settle_unmeasured(
                self._db, taken, lease_seconds=self._config.lease_seconds
            )
        watch = _Watch(self._db, taken, self._config.lease_seconds)
        log.info("%s: its batch size is measured", taken.job.id)
        ended = self._measurer.follow(auto_batch_size.as_measured(taken.job), SECONDS, watch.report)
        if watch.control is not None:
            outcome = Outcome("cancelled", "cancelled") if watch.control.cancel_keep else Outcome("paused")
            return self._ended(taken, outcome)
        if ended == "left":
            return self._given_back(taken)
        if ended is not None:
            return self._ended(taken, Outcome("failed", "failed", error=ended))
        return self._settled(taken, watch.found)

    def _settled(self, taken: Claim, found: Found) -> Claim | Conclude:
        while True:
            try:
                return auto_batch_size.settle(
                    self._db, taken, lease_seconds=self._config.lease_seconds, **found
                )
            except DatabaseUnavailableError as error:
                log.warning("a measured batch size waits for the database: %s", error.message)
                if self._stopping.wait(RETRY_SECONDS):
                    return self._given_back(taken)

    def _given_back(self, taken: Claim) -> Conclude:
        return lambda: complete.give_back(self._db, taken.attempt_id, "The worker was shut down.")

    def _ended(self, taken: Claim, outcome: Outcome) -> Conclude:
        delay = self._config.retry_delay_seconds
        return lambda: complete.complete(self._db, taken.attempt_id, outcome, retry_delay_seconds=delay)


class _Watch:
    """What is asked of the attempt meanwhile: ``control`` says so once it is to be left."""

    def __init__(self, db: Database, taken: Claim, lease_seconds: float) -> None:
        self.found: Found = {}
        self.control: Control | None = None
        self._db = db
        self._taken = taken
        self._lease_seconds = lease_seconds

    def report(self, found: Found) -> bool:
        """Renew the lease; False when somebody wants the attempt to end. Raises AttemptLostError."""
        self.found = found
        try:
            with self._db.write() as tx:
                control = attempts.renew(tx, self._taken.attempt_id, self._lease_seconds)
        except DatabaseUnavailableError:
            return True
        if control.cancel_keep is None and not control.pause:
            return True
        self.control = control
        return False


def _contradiction(error: InvalidRequestError) -> dict[str, object]:
    return {
        "category": "spec",
        "code": "no_batch_size",
        "message": f"No batch size that fits into memory works out: {error.message}",
        "param": "batch_size",
        "retryable": False,
    }
