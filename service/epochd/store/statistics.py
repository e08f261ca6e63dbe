"""What the service does, in numbers: read in a few short queries, whatever the number of jobs.

Jobs are counted in the index by which they are claimed, not in their rows; rows are read only of what runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select

from epochd.store import counters, workers
from epochd.store.attempts import iterations_made
from epochd.store.database import Transaction
from epochd.store.tables import attempts, jobs
from epochd.store.types import now
from epochd.store.workers import WorkerRow


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs that a worker could claim now, and how long the one among them that is ready longest has been so."""

    depth: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Pace:
    """What the running jobs do, all together; the lag is that of the one that is recorded farthest behind."""

    iterations_per_second: float
    samples_per_second: float
    recorder_lag_seconds: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """One moment of the service. Statuses and outcomes that no job or attempt has are left out."""

    jobs: Mapping[str, int]
    queue: Queue
    pace: Pace
    iterations: int
    """Ever recorded, by all attempts, those of deleted jobs included."""
    attempts: Mapping[str, int]
    """Ever ended, by outcome."""
    workers: list[WorkerRow]
    """Alive."""


def read(tx: Transaction) -> Statistics:
    """Read all of it."""
    ended = counters.read(tx)
    return Statistics(
        jobs=_jobs(tx),
        queue=_queue(tx),
        pace=_pace(tx),
        iterations=ended.get(counters.ITERATIONS, 0) + _iterations_of_running(tx),
        attempts=counters.by_outcome(ended),
        workers=workers.alive(tx),
    )


def _jobs(tx: Transaction) -> dict[str, int]:
    query = select(jobs.c.status, func.count()).group_by(jobs.c.status)
    return {status: count for status, count in tx.execute(query)}  # noqa: C416 - rows are no pairs to dict()


def _queue(tx: Transaction) -> Queue:
    ready = (jobs.c.status == "queued", jobs.c.available_at <= now())
    query = select(func.count(), func.min(jobs.c.available_at), now()).where(*ready)
    depth, oldest, moment = tx.execute(query).one()
    return Queue(depth, _seconds(oldest, moment) if depth else 0.0)


def _pace(tx: Transaction) -> Pace:
    # What an attempt has not recorded yet still shows the attempt before it.
    recording = (jobs.c.status == "running", jobs.c.recorded_at.is_not(None))
    query = select(jobs.c.plan, jobs.c.progress, jobs.c.recorded_at, now()).where(*recording)
    rows = [
        (plan, progress or {}, recorded_at, moment)
        for plan, progress, recorded_at, moment in tx.execute(query)
    ]
    rates = [(float(progress.get("samples_per_second") or 0), _samples(plan)) for plan, progress, *_ in rows]
    lags = [
        float(progress.get("metrics_lag_seconds") or 0) + _seconds(recorded_at, moment)
        for _, progress, recorded_at, moment in rows
    ]
    return Pace(
        iterations_per_second=sum(rate / samples for rate, samples in rates),
        samples_per_second=sum(rate for rate, _ in rates),
        recorder_lag_seconds=max(lags, default=0.0),
    )


def _samples(plan: Mapping[str, Any]) -> float:
    """Tell how many samples an iteration has, on average: the last one of an epoch may have fewer."""
    iterations = int(plan["iterations_per_epoch"])
    return ((iterations - 1) * int(plan["batch_size"]) + int(plan["last_batch_size"])) / iterations


def _iterations_of_running(tx: Transaction) -> int:
    made = func.coalesce(func.sum(iterations_made()), 0)
    return int(tx.execute(select(made).where(attempts.c.finished_at.is_(None))).scalar_one())


def _seconds(since: datetime, moment: datetime) -> float:
    # The moment is of the statement, which may have begun before another process wrote its time.
    return max(0.0, (moment - since).total_seconds())
