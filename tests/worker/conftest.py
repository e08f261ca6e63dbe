import signal
import threading
import time
from multiprocessing import forkserver

import psutil
import pytest
from tests.worker.twins import long_training, train_alone

from epochd.contract.spec import JobSpec
from epochd.jobs.lifecycle import is_done
from epochd.jobs.submit import submit
from epochd.settings import Settings
from epochd.store import attempts, events, jobs
from epochd.worker.executors.local import LocalExecutor
from epochd.worker.order import Folders
from epochd.worker.worker import Worker

DIGITS = {"dataset": "digits", "epochs": 3, "batch_size": 64}
ENDLESS = {
    "dataset": {"name": "synthetic", "samples": 20_000, "features": 32},
    "epochs": 100_000,
    "batch_size": 256,
}


@pytest.fixture(scope="session")
def training():
    """A job that lasts seconds and comes out the same each time."""
    return long_training()


@pytest.fixture(scope="session")
def twin(tmp_path_factory, training):
    """What that job leaves behind when nobody disturbs it."""
    return train_alone(tmp_path_factory.mktemp("twin") / "data", training)


@pytest.fixture
def queue(database):
    def make(body, **changes):
        return submit(database, JobSpec.model_validate({**body, **changes})).row

    return make


@pytest.fixture
def folders(data_dir):
    return Folders.of(Settings(data_dir=data_dir))


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
        settings = {"device": "cpu", "threads": 1, "lease_seconds": 10, "retry_delay_seconds": 0, **settings}
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

    def wait(job, condition, seconds=100):
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


@pytest.fixture
def attempts_of(database):
    def read(job):
        with database.read() as tx:
            return attempts.of_job(tx, job.number)

    return read


@pytest.fixture
def told(database):
    def read(job, kind):
        with database.read() as tx:
            return [event.data for event in events.after(tx, job.number, 0, 10_000) if event.type == kind]

    return read


@pytest.fixture
def wait_for_checkpoint(wait_until, told):
    """Wait until a running attempt has saved a checkpoint."""

    def wait(job, attempt=1):
        def has_saved(row):
            assert not is_done(row.status), row
            saved = [one["iteration"] for one in told(job, "checkpoint.saved")]
            restored = [one["iteration"] for one in told(job, "checkpoint.restored")]
            # Until an attempt has saved one itself, the newest is the one that it began from.
            is_new = max(saved, default=0) > max(restored, default=0)
            return row.attempt == attempt and len(restored) >= attempt - 1 and is_new

        return wait_until(job, has_saved)

    return wait


def runners():
    """List the runner processes of this process's fork server."""
    server = forkserver._forkserver._forkserver_pid
    return psutil.Process(server).children() if server else []


def kill_runners():
    for runner in runners():
        runner.send_signal(signal.SIGKILL)
