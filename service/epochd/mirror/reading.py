"""What a target is sent of a job: a helping at a time, each read in one short transaction."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.mirror.targets import Series
from epochd.store import attempts, curve, metrics
from epochd.store.database import Transaction
from epochd.store.jobs import JobRow

ITERATION_PREFIX = "iteration/"
"""Before the names of what belongs to iterations: their steps are iterations, those of the others epochs."""
ITERATIONS_AT_ONCE = 65_536
"""So many are read at most, however few of them are sent."""
ROWS_PER_EPOCH = 10
"""An epoch has about as many metrics as so many iterations."""

Clock = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Position:
    """How far a target has come: iterations and epochs up to here, the newest of which it was told this moment for."""

    iteration: int = 0
    epoch: int = 0
    moment: float = 0.0


@dataclass(frozen=True, slots=True)
class Helping:
    """What follows a position, and the one that it leads to; ``complete`` when nothing is left."""

    job: JobRow
    series: tuple[Series, ...]
    position: Position
    complete: bool


def every(job: JobRow, points: int) -> int:
    """Tell of how many iterations one is sent, so that a job as planned has at most so many ``points``."""
    return max(1, ceil(int(job.plan["total_iterations"]) / points))


def read(tx: Transaction, job: JobRow, position: Position, *, every: int, rows: int) -> Helping:
    """Read what follows a position: of the iterations 1, 1 + every, 1 + 2 * every, …, and of each epoch.

    At most ``rows`` iterations, and of the epochs those that end with one of them. Values that are not finite are left
    out.
    """
    most = max(1, rows // ROWS_PER_EPOCH)
    epochs = metrics.epochs_as_recorded(tx, job, after=position.epoch, limit=most + 1)
    end = epochs[most - 1].iteration if len(epochs) > most else curve.NO_ITERATION
    limit = max(0, min(ITERATIONS_AT_ONCE, rows * every, end - position.iteration))
    columns = metrics.iteration_columns(
        tx, job, after=position.iteration, limit=limit, fields=ITERATION_FIELDS
    )
    newest = int(columns["iteration"][-1]) if len(columns["iteration"]) else position.iteration
    now = [row for row in epochs[:most] if row.iteration <= newest]
    clock = _clock(tx, job, position)
    moment = float(clock(np.array([newest], dtype=np.int64))[0])
    return Helping(
        job=job,
        series=(*_of_iterations(columns, every, clock), *_of_epochs(now, clock)),
        position=Position(newest, now[-1].epoch if now else position.epoch, moment),
        complete=len(now) == len(epochs) and newest >= metrics.last_iteration(tx, job),
    )


def _of_iterations(columns: dict[str, npt.NDArray[Any]], every: int, clock: Clock) -> list[Series]:
    sent = (columns["iteration"] - 1) % every == 0
    steps = columns["iteration"][sent]
    times = clock(steps)
    return [
        _finite(ITERATION_PREFIX + name, steps, columns[name][sent].astype(np.float64), times)
        for name in ITERATION_FIELDS
    ]


def _of_epochs(epochs: list[metrics.EpochRow], clock: Clock) -> list[Series]:
    steps = np.array([row.epoch for row in epochs], dtype=np.int64)
    times = clock(np.array([row.iteration for row in epochs], dtype=np.int64))
    values = [{**row.metrics, "learning_rate": row.learning_rate, "seconds": row.seconds} for row in epochs]
    names = dict.fromkeys(name for row in values for name in row)
    return [_finite(name, steps, _column(values, name), times) for name in names]


def _column(rows: list[dict[str, Any]], name: str) -> npt.NDArray[np.float64]:
    return np.array([row.get(name) for row in rows], dtype=np.float64)  # None becomes NaN


def _finite(
    key: str,
    steps: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    times: npt.NDArray[np.float64],
) -> Series:
    finite = np.isfinite(values)
    return Series(key, steps[finite], values[finite], times[finite])


def _clock(tx: Transaction, job: JobRow, sent: Position) -> Clock:
    """Make what tells about when an iteration was trained: each attempt's are spread evenly over its time.

    What was said of those that were sent is not taken back: the others follow.
    """
    rows = {row.id: row for row in attempts.of_job(tx, job.number)}
    numbers, moments = [sent.iteration], [max(sent.moment, job.created_at.timestamp())]
    for segment in curve.segments(tx, job.number):
        row = rows[segment.attempt_id]
        begin, end = row.claimed_at, row.finished_at or job.recorded_at or row.claimed_at
        seconds = (end - begin).total_seconds() / (row.last_iteration - row.first_iteration + 1)
        for number in (segment.first, segment.last):
            if number > sent.iteration:
                numbers.append(number)
                moments.append(begin.timestamp() + seconds * (number - row.first_iteration + 1))
    ascending = np.maximum.accumulate(moments)
    return lambda iterations: np.interp(iterations, numbers, ascending)
