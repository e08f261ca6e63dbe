import numpy as np
import pytest

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.submit import submit
from epochd.store import attempts, events, jobs, metrics
from epochd.store.metrics import Block, NewEpoch


@pytest.fixture
def queue(database):
    """Queue a job and return its row."""

    def make(**changes):
        body = {"dataset": "iris", "epochs": 3, "batch_size": 16, **changes}
        return submit(database, JobSpec.model_validate(body)).row

    return make


@pytest.fixture
def take(database):
    """Claim the next job as a worker would."""

    def make(worker="worker-1", lease_seconds=30.0):
        return claim(database, worker=worker, device="cpu", lease_seconds=lease_seconds)

    return make


@pytest.fixture
def train(database):
    """Record, as the runner of a claim would, iterations up to ``epochs`` epochs (8 iterations each)."""

    def record(taken, epochs=2, first_iteration=1):
        last = epochs * 8
        values = np.ones(last - first_iteration + 1, np.float32)
        block = Block(0, values, values, values, values, first_iteration=first_iteration)
        with database.write() as tx:
            attempts.renew(tx, taken.attempt_id, 30)
            metrics.record_iterations(tx, taken.attempt_id, 8, [block])
            new = [NewEpoch(n, n * 8, {"train_loss": 1.0}, 0.1, 0.5, True) for n in range(1, epochs + 1)]
            metrics.record_epochs(
                tx, taken.attempt_id, [one for one in new if one.iteration >= first_iteration]
            )
            jobs.record_progress(
                tx,
                taken.job.number,
                attempt=taken.attempt,
                epoch=epochs,
                iteration=last,
                progress={"iteration": last},
                metrics={"train_loss": 1.0},
            )

    return record


@pytest.fixture
def row(database):
    """Read the row of a job."""

    def read(job):
        with database.read() as tx:
            return jobs.get(tx, job.id)

    return read


@pytest.fixture
def told(database):
    """Read the types of a job's events, or with ``data`` the data of the newest one, too."""

    def read(job):
        with database.read() as tx:
            return events.after(tx, job.number, 0, 1000)

    return read


@pytest.fixture
def types(told):
    def read(job):
        return [event.type for event in told(job)]

    return read
