import pytest

from epochd.contract.spec import JobSpec
from epochd.jobs.claim import claim
from epochd.jobs.submit import submit


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
