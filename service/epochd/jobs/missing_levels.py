"""The reduced levels of iterations that were recorded before there were any, made when these are archived.

Without them every plot of an archived series would read all of its file.
"""

from collections.abc import Sequence

import numpy as np

from epochd.jobs.lifecycle import is_done
from epochd.store import jobs, levels, retention
from epochd.store.attempts import AttemptRow
from epochd.store.blocks import Float32Array
from epochd.store.database import Database
from epochd.store.levels import LevelBuilder

ROWS_AT_ONCE = 128
"""About 0.4 MB; whoever records something waits so long."""


class MissingLevels:
    """Takes the iterations of the attempts of a job as they are read, and holds a byte of each."""

    def __init__(self, db: Database, job_number: int) -> None:
        self._db = db
        self._job_number = job_number
        self._builders: dict[int, tuple[int, LevelBuilder]] = {}

    def begin(self, row: AttemptRow, iterations_per_epoch: int) -> None:
        """Begin with an attempt; nothing is made when its rows are all there."""
        span = levels.span_of(0)
        rows = row.last_iteration // span + (1 - row.first_iteration) // span
        if rows > 0:
            with self._db.read() as tx:
                stored = retention.stored_levels(tx, row.id)
            if stored < rows:
                self._builders[row.id] = (iterations_per_epoch, LevelBuilder(row.first_iteration - 1))

    def add(self, attempt_id: int, columns: Sequence[Float32Array]) -> None:
        """Take the iterations that follow, in the columns' order."""
        if attempt_id in self._builders:
            self._builders[attempt_id][1].add(np.stack(columns))

    def store(self) -> None:
        """Store the rows that were missing, few at a time, unless the job is deleted or retried meanwhile."""
        for attempt_id, (iterations_per_epoch, builder) in self._builders.items():
            # The finest last: only when these are there will nobody look again.
            rows = sorted(builder.rows, key=lambda row: -row.level)
            for begin in range(0, len(rows), ROWS_AT_ONCE):
                with self._db.write() as tx:
                    job = jobs.by_number(tx, self._job_number, lock=True)
                    if job is None or not is_done(job.status):
                        return
                    part = rows[begin : begin + ROWS_AT_ONCE]
                    retention.store_levels(tx, attempt_id, iterations_per_epoch, part)
