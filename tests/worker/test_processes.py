"""Worker processes that are suspended, or told to end all at once."""

import signal

import pytest
from tests.e2e.conftest import Command
from tests.marks import postgres_in_torture
from tests.worker.twins import outcome_of

from epochd.errors import DatabaseUnavailableError
from epochd.store.database import Database

LEASE_SECONDS = 3


@pytest.fixture
def start_process(tmp_path, database_url, data_dir):
    """Start ``epochd worker`` processes; whatever is left of them after the test is killed."""
    started = []

    def start():
        flags = {"database-url": database_url, "data-dir": data_dir, "device": "cpu", "threads": 1}
        flags |= {"lease-seconds": LEASE_SECONDS, "retry-delay-seconds": 0}
        arguments = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        started.append(Command(tmp_path, "worker", *arguments))
        return started[-1]

    yield start
    for command in started:
        command.kill_all()


@pytest.fixture
def suspend(database_url):
    """Suspend all processes of a worker, at a moment at which they hold no lock."""

    def is_free():
        other = Database(database_url, busy_seconds=0.5)
        try:
            with other.write():
                return True
        except DatabaseUnavailableError:
            return False
        finally:
            other.close()

    def run(command):
        while True:
            processes = command.processes()
            for process in processes:
                process.suspend()
            if is_free():
                return processes
            for process in processes:
                process.resume()

    return run


@postgres_in_torture
def test_a_worker_that_slept_past_its_lease_writes_nothing_more(
    database,
    data_dir,
    queue,
    training,
    start_process,
    suspend,
    wait_until,
    wait_done,
    wait_for_checkpoint,
    attempts_of,
    twin,
):
    job = queue(training)
    sleeper = start_process()
    wait_for_checkpoint(job)
    processes = suspend(sleeper)
    start_process()
    wait_until(job, lambda row: row.attempt == 2 and row.iteration > 0)
    asleep = attempts_of(job)[0]
    assert asleep.outcome == "lost"
    for process in processes:
        process.resume()
    row = wait_done(job)
    assert (row.status, row.attempt) == ("succeeded", 2)
    assert attempts_of(job)[0] == asleep
    assert outcome_of(database, data_dir, row) == twin


@postgres_in_torture
def test_a_machine_that_tells_every_process_to_end_loses_nothing(
    database,
    data_dir,
    queue,
    training,
    start_process,
    wait_until,
    wait_done,
    job_row,
    attempts_of,
    told,
    twin,
):
    job = queue(training, max_attempts=1)
    worker = start_process()
    wait_until(job, lambda row: row.epoch >= 2)
    for process in worker.processes():
        process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0, worker.errors
    assert worker.processes() == []
    assert job_row(job).status == "queued"
    assert told(job, "checkpoint.saved")[-1]["reason"] == "shutdown"
    start_process()
    row = wait_done(job)
    # The worker may have begun it once more before the signal came to it, too.
    *released, last = attempts_of(job)
    assert {one.outcome for one in released} == {"released"}
    assert last.outcome == "succeeded"
    assert last.first_iteration == max(one.last_iteration for one in released) + 1
    assert outcome_of(database, data_dir, row) == twin
