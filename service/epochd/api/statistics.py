"""The numbers of the service as a whole, out of the database, for Prometheus."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, get_args

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from epochd.contract.attempts import AttemptOutcome
from epochd.contract.job import Status
from epochd.errors import EpochdError
from epochd.store import statistics
from epochd.store.database import Database
from epochd.store.statistics import Statistics
from epochd.store.workers import WorkerRow

FRESH_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 5.0


class Reading:
    """Reads the statistics once a second at most, for however many ask, and one at a time."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._task: asyncio.Task[Statistics | None] | None = None
        self._fresh_until = 0.0

    async def newest(self) -> Statistics | None:
        """Give what was read just now; None when the database does not answer, or not within seconds."""
        loop = asyncio.get_running_loop()
        if self._task is None or (self._task.done() and loop.time() >= self._fresh_until):
            self._task = loop.create_task(self._read())
        task = self._task
        # A task that takes longer goes on: its thread cannot be told to stop, and no second one is to hang beside it.
        await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        return task.result() if task.done() else None

    async def _read(self) -> Statistics | None:
        # Not a thread of those that requests wait for when the database is away.
        found = await asyncio.to_thread(_read, self._db)
        self._fresh_until = asyncio.get_running_loop().time() + FRESH_SECONDS
        return found


def _read(db: Database) -> Statistics | None:
    try:
        with db.read() as tx:
            return statistics.read(tx)
    except EpochdError:
        return None


def families(found: Statistics | None) -> Iterator[Metric]:
    """Tell statistics in Prometheus' terms: of a database that is away, only that it is."""
    yield _gauge(
        "database_up",
        "1 when the database answers; if not, all that is read from it is missing.",
        found is not None,
    )
    if found is not None:
        yield from _of_jobs(found)
        yield from _of_attempts(found)
        yield from _of_workers(found)


def _of_jobs(found: Statistics) -> Iterator[Metric]:
    counts = {status: found.jobs.get(status, 0) for status in get_args(Status)}
    yield _labelled(GaugeMetricFamily("epochd_jobs", "Jobs by status.", labels=["status"]), counts)
    yield _gauge("queue_depth", "Jobs that a worker could take now.", found.queue.depth)
    yield _gauge(
        "queue_oldest_job_age_seconds",
        "How long the job that has waited longest could have been taken.",
        found.queue.oldest_seconds,
    )
    yield _gauge("iterations_per_second", "Iterations of all running jobs.", found.pace.iterations_per_second)
    yield _gauge("samples_per_second", "Samples of all running jobs.", found.pace.samples_per_second)
    yield _gauge(
        "recorder_lag_seconds",
        "How far what is recorded of a running job is behind its training, at worst.",
        found.pace.recorder_lag_seconds,
    )


def _of_attempts(found: Statistics) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "epochd_iterations", "Iterations ever recorded; repeated ones count again.", value=found.iterations
    )
    counts = {outcome: found.attempts.get(outcome, 0) for outcome in get_args(AttemptOutcome)}
    ended = CounterMetricFamily("epochd_attempts", "Attempts ever ended, by outcome.", labels=["outcome"])
    yield _labelled(ended, counts)
    yield CounterMetricFamily(
        "epochd_attempts_lost", "Attempts whose lease ran out or whose process died.", value=counts["lost"]
    )


def _of_workers(found: Statistics) -> Iterator[Metric]:
    yield _gauge("workers", "Workers that are alive.", len(found.workers))
    yield _gauge(
        "worker_slots", "Jobs that they can train at once.", sum(worker.slots for worker in found.workers)
    )
    memory = GaugeMetricFamily(
        "epochd_device_memory_bytes",
        "Memory of the workers' devices, in use by whomever.",
        labels=["host", "device", "kind"],
    )
    for (host, device), kinds in _memory(found.workers).items():
        for kind, count in kinds.items():
            memory.add_metric([host, device, kind], count)
    yield memory


def _memory(workers: Sequence[WorkerRow]) -> dict[tuple[str, str], Mapping[str, int]]:
    """Give the memory of each device once: of the workers of one machine, that seen last tells."""
    told = sorted(workers, key=lambda worker: worker.last_seen_at)
    return {
        (worker.host, device): kinds for worker in told for device, kinds in (worker.memory or {}).items()
    }


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"epochd_{name}", documentation, value=value)


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for label, value in values.items():
        family.add_metric([label], value)
    return family
