import threading
import time
from multiprocessing import forkserver

import psutil
import pytest

from epochd.contract.spec import JobSpec
from epochd.jobs.lifecycle import is_done
from epochd.jobs.submit import submit
from epochd.settings import Settings
from epochd.store import jobs
from epochd.worker.executors.local import LocalExecutor
from epochd.worker.worker import Worker

DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 64}
ENDLESS = {
    "dataset": {"name": "synthetic", "samples": 20_000, "features": 32},
    "epochs": 100_000,
    "batch_size": 256,
}


@pytest.fixture
def queue(database):
    def make(body, **changes):
        return submit(database, JobSpec.model_validate({**body, **changes})).row

    return make


class SharedExecutor(LocalExecutor):
    """Its fork server outlives the workers of one test: loading torch anew for each takes longer than the tests."""

    def close(self):
        pass


@pytest.fixture(scope="session")
def executor():
    shared = SharedExecutor()
    yield shared
    LocalExecutor.close(shared)


@pytest.fixture
def start_worker(database_url, data_dir, executor):
    """Start workers in threads of this process; they stop when the test ends."""
    started = []

    def start(**settings):
        settings = {"device": "cpu", "lease_seconds": 10, "retry_delay_seconds": 0, **settings}
        worker = Worker(Settings(database_url=database_url, data_dir=data_dir, **settings), executor=executor)
        thread = threading.Thread(target=worker.run, name="worker")
        thread.start()
        started.append((worker, thread))
        return worker

    yield start
    for worker, thread in started:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive(), "the worker did not stop"


@pytest.fixture
def job_row(database):
    def read(job):
        with database.read() as tx:
            return jobs.get(tx, job.id)

    return read


@pytest.fixture
def wait_until(job_row):
    """Wait until the job's row fulfils a condition; fail with the row when it does not come to that."""

    def wait(job, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            row = job_row(job)
            if condition(row):
                return row
            time.sleep(0.02)
        pytest.fail(f"never came to that: {row}")

    return wait


@pytest.fixture
def wait_done(wait_until):
    return lambda job: wait_until(job, lambda row: is_done(row.status))


def runners():
    """List the runner processes of this process's fork server."""
    server = forkserver._forkserver._forkserver_pid
    return psutil.Process(server).children() if server else []
