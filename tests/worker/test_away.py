"""A database that is away while a job trains: a Postgres that is shut down, a SQLite file that somebody locks."""

import contextlib
import threading
import time

import pytest
from tests.worker.conftest import kill_runners
from tests.worker.twins import outcome_of

from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.worker import recorder
from epochd.worker.order import AttemptOrder
from epochd.worker.runner import run_attempt
from epochd.worker.spool import Spool

IN_MEMORY = 20


@pytest.fixture
def database_url(database_kind, request):
    if database_kind == "sqlite":
        yield request.getfixturevalue("database_url")
    else:
        server = request.getfixturevalue("own_postgres_server")
        yield server.url(server.create())


@pytest.fixture
def away(database_kind, request):
    """Take the database away for the length of a block."""

    @contextlib.contextmanager
    def locked():
        with request.getfixturevalue("database").write():
            yield

    @contextlib.contextmanager
    def stopped():
        server = request.getfixturevalue("own_postgres_server")
        server.interrupt()
        yield
        server.go_on()

    return locked if database_kind == "sqlite" else stopped


@pytest.fixture
def spools(monkeypatch):
    """The spools that recorders make: small ones."""
    made = []

    class Watched(Spool):
        most_in_memory = 0

        def append(self, note):
            super().append(note)
            self.most_in_memory = max(self.most_in_memory, len(self) - self.notes_on_disk)

    def make(folder):
        made.append(Watched(folder, max_notes=IN_MEMORY))
        return made[-1]

    monkeypatch.setattr(recorder, "Spool", make)
    return made


def test_training_goes_on_and_nothing_is_lost_or_doubled(
    database, database_url, data_dir, folders, queue, training, wait_until, job_row, away, spools, twin
):
    job = queue(training)
    taken = claim(database, worker="worker", device="cpu", lease_seconds=600)
    order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=600)
    outcomes = []
    training = threading.Thread(target=lambda: outcomes.append(run_attempt(order)))
    training.start()
    wait_until(job, lambda row: row.epoch >= 2)
    with away():
        deadline = time.monotonic() + 60
        while spools[0].notes_on_disk < 5 * IN_MEMORY:
            assert time.monotonic() < deadline, "training does not go on"
            time.sleep(0.01)
        assert training.is_alive()
    training.join(100)
    assert complete(database, taken.attempt_id, outcomes[0], retry_delay_seconds=0)
    assert spools[0].most_in_memory <= IN_MEMORY
    assert list(folders.spool.iterdir()) == []
    assert outcome_of(database, data_dir, job_row(job)) == twin


def test_a_job_that_was_killed_meanwhile_skips_nothing_that_was_not_recorded(
    database, data_dir, folders, queue, training, start_worker, wait_until, wait_done, away, attempts_of, twin
):
    job = queue(training)
    start_worker(lease_seconds=30)
    recorded = wait_until(job, lambda row: row.epoch >= 2).iteration
    with away():
        deadline = time.monotonic() + 60
        while _newest_checkpoint(folders, job) <= recorded:
            assert time.monotonic() < deadline, "no checkpoint is saved"
            time.sleep(0.01)
        kill_runners()
    row = wait_done(job)
    first, second = attempts_of(job)
    assert (first.outcome, second.outcome) == ("lost", "succeeded")
    assert second.first_iteration <= first.last_iteration + 1
    assert outcome_of(database, data_dir, row) == twin


def _newest_checkpoint(folders, job):
    found = (folders.checkpoints / job.id).glob("attempt-1/iteration-*.ckpt")
    return max((int(path.stem.removeprefix("iteration-")) for path in found), default=0)
