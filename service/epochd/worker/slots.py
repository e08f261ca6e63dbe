"""A slot claims one job after another and follows each attempt to its end."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epochd.errors import AttemptLostError, DatabaseUnavailableError
from epochd.jobs import complete
from epochd.jobs.claim import claim
from epochd.store import attempts
from epochd.store.attempts import Control
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.worker.executors.local import LocalExecutor, RunningAttempt
from epochd.worker.loop import Loop
from epochd.worker.order import AttemptOrder
from epochd.worker.waker import Waker

log = logging.getLogger("epochd.worker")

FOLLOW_SECONDS = 0.25
IDLE_SECONDS = 1.0
CONCLUDE_RETRY_SECONDS = 1.0

Conclude = Callable[[], bool]
"""Records how an attempt ended; False when somebody else had ended it."""


@dataclass(frozen=True, slots=True)
class SlotConfig:
    """What all slots of a worker share."""

    worker: str
    database_url: str
    artifacts_dir: Path
    threads: int
    lease_seconds: float
    retry_delay_seconds: float
    log_level: str


class Slot(Loop):
    """One place where a job can train: a GPU, or a share of the CPU."""

    def __init__(
        self, db: Database, executor: LocalExecutor, config: SlotConfig, device: str, waker: Waker
    ) -> None:
        super().__init__(f"slot {device}")
        self._db = db
        self._executor = executor
        self._config = config
        self._device = device
        self._waker = waker

    def tick(self) -> None:
        """Train the next job, or wait until something changes."""
        changes = self._waker.changes
        taken = claim(
            self._db,
            worker=self._config.worker,
            device=self._device,
            lease_seconds=self._config.lease_seconds,
        )
        if taken is not None:
            self._train(taken)
        elif not self.stopping.is_set():
            self._waker.wait_beyond(changes, IDLE_SECONDS)

    def _train(self, taken: Claim) -> None:
        log.info("%s: attempt %s starts on %s", taken.job.id, taken.attempt_id, self._device)
        try:
            running = self._executor.launch(self._order(taken))
        except OSError as error:
            reason = f"The process for the attempt could not be started: {error.strerror}."
            log.exception("%s: %s", taken.job.id, reason)
            self._persist(self._lost(taken, reason))
            return
        try:
            conclude = Follower(self._db, taken.attempt_id, running, self.stopping, self._config).follow()
        except BaseException:
            running.kill()  # followed by nobody, it would train beside the slot's next job
            raise
        self._persist(conclude)

    def _lost(self, taken: Claim, reason: str) -> Conclude:
        delay = self._config.retry_delay_seconds
        return lambda: complete.lose(self._db, taken.attempt_id, reason, retry_delay_seconds=delay)

    def _persist(self, conclude: Conclude) -> None:
        # The outcome exists only here until it is committed: while the database is away, wait for it. At a shutdown
        # try once; the lease will expire, and the attempt is made again.
        while True:
            try:
                conclude()
            except DatabaseUnavailableError as error:
                log.warning("the outcome of an attempt waits for the database: %s", error.message)
                if self.stopping.wait(CONCLUDE_RETRY_SECONDS):
                    return
            else:
                return

    def _order(self, taken: Claim) -> AttemptOrder:
        return AttemptOrder.of(
            taken,
            database_url=self._config.database_url,
            artifacts_dir=self._config.artifacts_dir,
            lease_seconds=self._config.lease_seconds,
            threads=self._config.threads,
            log_level=self._config.log_level,
        )


class Follower:
    """Watches one running attempt: its process, its lease, a cancellation, the worker's shutdown."""

    def __init__(
        self,
        db: Database,
        attempt_id: int,
        running: RunningAttempt,
        stopping: threading.Event,
        config: SlotConfig,
    ) -> None:
        self._db = db
        self._attempt_id = attempt_id
        self._running = running
        self._stopping = stopping
        self._config = config
        self._cancel_seen_at: float | None = None
        self._silent_since: float | None = None

    def follow(self) -> Conclude:
        """Wait until the process is gone, ending it where need be; return what is then to be recorded."""
        while not self._running.wait(FOLLOW_SECONDS):
            verdict = self._give_back if self._stopping.is_set() else self._verdict()
            if verdict is not None:
                self._running.kill()
                return self._reported(or_else=verdict)
        return self._reported(or_else=self._lose)

    def _reported(self, *, or_else: Conclude) -> Conclude:
        outcome = self._running.outcome()
        if outcome is None:
            return or_else
        if outcome.error is None:
            log.info("attempt %s: %s (%s)", self._attempt_id, outcome.status, outcome.stop_reason)
        else:
            code, message = outcome.error["code"], outcome.error["message"]
            log.warning("attempt %s: %s: %s: %s", self._attempt_id, outcome.status, code, message)
        delay = self._config.retry_delay_seconds
        return lambda: complete.complete(self._db, self._attempt_id, outcome, retry_delay_seconds=delay)

    def _verdict(self) -> Conclude | None:
        """Say how the attempt is to be concluded when its process must go now; None: let it run."""
        try:
            with self._db.read() as tx:
                control = attempts.control(tx, self._attempt_id)
        except AttemptLostError:
            return self._nothing
        except DatabaseUnavailableError:
            self._silent_since = None
            return None
        if self._is_silent(control):
            return self._lose_silent
        return self._cancel_killed if self._cancel_is_due(control) else None

    def _is_silent(self, control: Control) -> bool:
        """Tell whether the runner lets its lease expire because it was suspended.

        It may hold locks, so nobody else can end the attempt before its process is gone. One that runs, but cannot
        renew, waits for a database that answers questions and takes no writes: a full disk, or somebody's lock.
        """
        if not (control.lease_expired and self._running.is_suspended()):
            self._silent_since = None
            return False
        self._silent_since = self._silent_since or time.monotonic()
        return time.monotonic() - self._silent_since >= self._config.lease_seconds / 3

    def _cancel_is_due(self, control: Control) -> bool:
        if control.cancel_keep is None:
            return False
        # Who asks again may shorten the grace: it counts as it stands now, from the first request on.
        grace = 0.0 if control.cancel_keep == "nothing" else control.cancel_grace_seconds
        if self._cancel_seen_at is None:
            self._cancel_seen_at = time.monotonic()
        return time.monotonic() - self._cancel_seen_at >= grace

    def _nothing(self) -> bool:
        return False

    def _give_back(self) -> bool:
        return complete.give_back(self._db, self._attempt_id, "The worker was shut down.")

    def _cancel_killed(self) -> bool:
        return complete.cancel_killed(self._db, self._attempt_id)

    def _lose_silent(self) -> bool:
        return self._lose("The process that ran the attempt was suspended past its lease, and was killed.")

    def _lose(self, reason: str | None = None) -> bool:
        reason = reason or self._running.obituary()
        log.warning("attempt %s: %s", self._attempt_id, reason)
        delay = self._config.retry_delay_seconds
        return complete.lose(self._db, self._attempt_id, reason, retry_delay_seconds=delay)
