"""A slot takes one job, or measurement, after another and follows each to its end."""

import logging

from epochd.errors import DatabaseUnavailableError
from epochd.jobs import complete
from epochd.jobs.claim import claim
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.worker import sweep
from epochd.worker.executors.local import LocalExecutor
from epochd.worker.follower import Conclude, Follower, SlotConfig
from epochd.worker.loop import Loop
from epochd.worker.measurer import Measurer
from epochd.worker.order import AttemptOrder
from epochd.worker.sizing import Sizing
from epochd.worker.waker import Waker

log = logging.getLogger("epochd.worker")

IDLE_SECONDS = 1.0
CONCLUDE_RETRY_SECONDS = 1.0


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
        self._measurer = Measurer(db, executor, config, device, self.stopping)
        self._sizing = Sizing(db, self._measurer, config, self.stopping)

    def tick(self) -> None:
        """Train the next job, or wait until something changes."""
        self._executor.wait_until_ready()
        if self.stopping.is_set():
            return
        changes = self._waker.changes
        if self._measurer.measure_next():  # somebody waits for it, and it is short
            return
        taken = claim(
            self._db,
            worker=self._config.worker,
            device=self._device,
            lease_seconds=self._config.lease_seconds,
            models=self._config.models,
        )
        if taken is not None:
            self._train(taken)
        else:
            self._waker.wait_beyond(changes, IDLE_SECONDS)

    def _train(self, taken: Claim) -> None:
        log.info("%s: attempt %s starts on %s", taken.job.id, taken.attempt_id, self._device)
        sweep.mark(self._config.folders.checkpoints, taken.job.id, self._db)
        sized = self._sizing.sized(taken)
        if not isinstance(sized, Claim):
            self._persist(sized)
            return
        self._launch(sized)

    def _launch(self, taken: Claim) -> None:
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
        sweep.discard_if_over(self._config.folders.checkpoints, taken.job.id, self._db)
        sweep.discard_superseded(self._config.folders.artifacts, taken.job.id, self._db)

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
            folders=self._config.folders,
            lease_seconds=self._config.lease_seconds,
            threads=self._config.threads,
            log_level=self._config.log_level,
            data_memory_bytes=self._config.data_memory_bytes,
        )
