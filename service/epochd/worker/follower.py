"""Follows a runner process to its end, and says what is then to be recorded."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from epochd.errors import AttemptLostError, DatabaseUnavailableError
from epochd.jobs import complete
from epochd.store import attempts
from epochd.store.attempts import Control
from epochd.store.database import Database
from epochd.worker.executors.local import RunningAttempt
from epochd.worker.order import Folders

log = logging.getLogger("epochd.worker")

FOLLOW_SECONDS = 0.25

Conclude = Callable[[], bool]
"""Records how an attempt ended; False when somebody else had ended it."""


@dataclass(frozen=True, slots=True)
class SlotConfig:
    """What all slots of a worker share."""

    worker: str
    database_url: str
    folders: Folders
    threads: int
    lease_seconds: float
    retry_delay_seconds: float
    drain_seconds: float
    log_level: str
    models: tuple[str, ...] = ()
    data_memory_bytes: int = 2**63


class Follower:
    """Watches one running attempt: its process, its lease, a cancellation, the worker's shutdown.

    At a shutdown the process is asked to save what it has trained and to end; ``drain_seconds`` later it is killed.
    """

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
        self._drained_at: float | None = None
        self._cancel_seen_at: float | None = None
        self._silent_since: float | None = None

    def follow(self) -> Conclude:
        """Wait until the process is gone, ending it where need be; return what is then to be recorded."""
        while not self._running.wait(FOLLOW_SECONDS):
            # A worker that stops asks the database nothing: an answer may take longer than it has.
            verdict = self._drained() if self._stopping.is_set() else self._verdict()
            if verdict is not None:
                self._running.kill()
                return self._reported(or_else=verdict)
        return self._reported(or_else=self._lose if self._drained_at is None else self._give_back)

    def _drained(self) -> Conclude | None:
        """Ask the process to leave; say that the attempt is given back once it had its time."""
        self._drained_at = self._drained_at or time.monotonic()
        # Each time: a process that has only just been started may not hear it yet.
        self._running.drain()
        is_late = time.monotonic() - self._drained_at >= self._config.drain_seconds
        return self._give_back if is_late else None

    def _reported(self, *, or_else: Conclude) -> Conclude:
        outcome = self._running.outcome()
        if outcome is None:
            return or_else
        if outcome.error is None:
            log.info("attempt %s: %s", self._attempt_id, outcome.stop_reason or outcome.status)
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
