import time

import pytest
from tests.worker.conftest import DIGITS

from epochd.errors import DatabaseUnavailableError
from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import Outcome, complete
from epochd.jobs.delete import delete
from epochd.store.database import Database
from epochd.worker.sweep import discard_if_over, mark, sweep

FAILED = {"category": "data", "code": "bad_data", "message": "bad", "param": None, "retryable": False}
ENDS = {
    "succeeded": Outcome("succeeded", "completed"),
    "failed": Outcome("failed", "failed", error=FAILED),
    "paused": Outcome("paused"),
    "released": Outcome("released"),
}


@pytest.fixture
def job_with_a_checkpoint(database, queue, folders):
    """Make a job that has a checkpoint, and end its first attempt if need be."""

    def make(outcome=None):
        queue(DIGITS)
        taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
        mark(folders.checkpoints, taken.job.id, database)
        folder = folders.checkpoints / taken.job.id
        (folder / "attempt-1").mkdir()
        (folder / "attempt-1" / "iteration-7.ckpt").touch()
        if outcome is not None:
            complete(database, taken.attempt_id, outcome, retry_delay_seconds=3600)
        return taken.job.id

    return make


@pytest.fixture(params=["sweep", "one"])
def clear(request, folders):
    def run(job_id, db):
        if request.param == "sweep":
            sweep(folders.checkpoints, db)
        else:
            discard_if_over(folders.checkpoints, job_id, db)
        return not (folders.checkpoints / job_id).exists()

    return run


@pytest.mark.parametrize(
    ("end", "gone"),
    [("succeeded", True), ("failed", False), ("paused", False), ("released", False), (None, False)],
)
def test_checkpoints_go_once_nobody_can_resume_from_them(database, job_with_a_checkpoint, clear, end, gone):
    job_id = job_with_a_checkpoint(ENDS.get(end))
    assert clear(job_id, database) == gone


@pytest.mark.parametrize(("keep", "gone"), [("nothing", True), ("last", False)])
def test_a_cancelled_job_keeps_them_for_a_retry_unless_nothing_is_to_be_kept(
    database, job_with_a_checkpoint, clear, keep, gone
):
    job_id = job_with_a_checkpoint(ENDS["released"])
    cancel(database, job_id, keep=keep, grace_seconds=0)
    assert clear(job_id, database) == gone


def test_those_of_a_deleted_job_go(database, job_with_a_checkpoint, folders, clear, tmp_path):
    job_id = job_with_a_checkpoint(ENDS["failed"])
    delete(database, job_id, folders.artifacts, tmp_path / "elsewhere")
    assert clear(job_id, database)


@pytest.mark.parametrize("marked", [True, False])
def test_those_of_a_job_of_another_database_stay(
    database, job_with_a_checkpoint, clear, migrated_sqlite_file, open_database, folders, marked
):
    job_id = job_with_a_checkpoint(ENDS["failed"])
    if not marked:
        (folders.checkpoints / job_id / "database").unlink()
    assert not clear(job_id, open_database(f"sqlite:///{migrated_sqlite_file}"))


def test_while_the_database_is_away_they_stay(database, job_with_a_checkpoint, folders, tmp_path):
    job_id = job_with_a_checkpoint(ENDS["succeeded"])
    away = Database(f"sqlite:///{tmp_path / 'missing' / 'epochd.db'}")
    discard_if_over(folders.checkpoints, job_id, away)
    with pytest.raises(DatabaseUnavailableError):
        sweep(folders.checkpoints, away)
    away.close()
    assert (folders.checkpoints / job_id / "attempt-1" / "iteration-7.ckpt").exists()


def test_without_any_checkpoints_there_is_nothing_to_do(database, folders):
    sweep(folders.checkpoints, database)
    discard_if_over(folders.checkpoints, "job_1", database)
    assert not folders.checkpoints.exists()


def test_a_worker_sweeps_when_it_starts(database, job_with_a_checkpoint, folders, start_worker):
    job_id = job_with_a_checkpoint(ENDS["succeeded"])
    other = job_with_a_checkpoint(ENDS["paused"])
    start_worker()
    deadline = time.monotonic() + 60
    while (folders.checkpoints / job_id).exists():
        assert time.monotonic() < deadline, "it was not swept"
        time.sleep(0.01)
    assert (folders.checkpoints / other).exists()
