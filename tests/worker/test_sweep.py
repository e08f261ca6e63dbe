import fcntl
import logging
import os
import threading
import time

import numpy as np
import pytest
from tests.worker.conftest import DIGITS

from epochd.errors import DatabaseUnavailableError
from epochd.jobs import directory
from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import Outcome, complete
from epochd.jobs.delete import delete
from epochd.jobs.retry import retry
from epochd.store import artifacts, attempts, jobs, metrics
from epochd.store.database import Database
from epochd.store.metrics import Block
from epochd.worker.archiver import Archiver
from epochd.worker.sweep import discard_if_over, discard_superseded, mark, sweep

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


@pytest.fixture
def db(database_url, folders):
    opened = Database(database_url, archives=folders.artifacts)
    yield opened
    opened.close()


@pytest.fixture
def recorded_job(db, queue):
    """Make a job that has recorded 2000 iterations and is done."""

    def make(outcome="succeeded"):
        queue(DIGITS)
        taken = claim(db, worker="worker", device="cpu", lease_seconds=60)
        values = np.arange(2000).astype(np.float32)
        blocks = [Block(number, *[values[number * 1024 : number * 1024 + 1024]] * 4) for number in (0, 1)]
        with db.write() as tx:
            metrics.record_iterations(tx, taken.attempt_id, 23, blocks)
        complete(db, taken.attempt_id, ENDS[outcome], retry_delay_seconds=0)
        return taken.job

    return make


@pytest.fixture
def archiver(db, folders):
    directory.claim(db, folders.artifacts)

    def make(keep_days=0.0):
        return Archiver(db, folders.artifacts, keep_days, threading.Event())

    return make


@pytest.fixture
def is_archived(db):
    def tell(job):
        with db.read() as tx:
            names = [one.name for one in artifacts.of_job(tx, job.number)]
            text = metrics.iterations_json(tx, job, after=1999, fields=["train_loss"])
            assert text == b'{"columns":{"iteration":[2000],"train_loss":[1999.0]},"next":null}'
            found = [one.archive is not None for one in attempts.of_job(tx, job.number)]
        assert found == ["metrics.parquet" in names]
        return found == [True]

    return tell


def test_iterations_of_old_jobs_are_archived(archiver, recorded_job, is_archived):
    found = [recorded_job(), recorded_job("failed"), recorded_job("paused")]
    archiver(1).run(60)
    assert [is_archived(job) for job in found] == [False, False, False]
    archiver(None).run(60)
    assert [is_archived(job) for job in found] == [False, False, False]
    archiver().run(60)
    assert [is_archived(job) for job in found] == [True, True, False]


def test_no_job_is_begun_when_the_time_is_up_or_the_worker_ends(archiver, recorded_job, is_archived):
    job = recorded_job()
    archiver().run(0)
    ending = archiver()
    ending._stopping.set()
    ending.run(60)
    assert not is_archived(job)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_a_job_that_cannot_be_archived_keeps_no_other_from_it(
    archiver, recorded_job, is_archived, folders, caplog
):
    first, second = recorded_job(), recorded_job()
    (folders.artifacts / first.id).touch()
    with caplog.at_level(logging.WARNING):
        archiver().run(60)
    assert (is_archived(first), is_archived(second)) == (False, True)
    assert "which is tried again" in caplog.text
    (folders.artifacts / first.id).unlink()
    archiver().run(60)
    assert is_archived(first)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_a_damaged_file_stops_nobody(archiver, recorded_job, is_archived, folders, db, caplog):
    job, archiving = recorded_job("failed"), archiver()
    archiving.run(60)
    (path,) = folders.artifacts.glob("job_*/metrics-*.parquet")
    path.write_bytes(b"nothing")
    retry(db, job.id, "scratch")
    taken = claim(db, worker="worker", device="cpu", lease_seconds=60)
    complete(db, taken.attempt_id, ENDS["failed"], retry_delay_seconds=0)
    other = recorded_job()
    archiving.run(60)
    assert is_archived(other)
    assert path.read_bytes() == b"nothing"
    assert "missing or damaged" in caplog.text


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_no_two_archive_on_one_disk(archiver, recorded_job, is_archived, folders):
    job = recorded_job()
    (folders.artifacts / ".archiving").mkdir(parents=True)
    handle = os.open(folders.artifacts / ".archiving", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    archiver().run(60)
    assert not is_archived(job)
    os.close(handle)
    archiver().run(60)
    assert is_archived(job)


def test_weights_that_are_superseded_go_and_archived_iterations_stay(
    archiver, recorded_job, is_archived, folders, db
):
    job = recorded_job("failed")
    archiver().run(60)
    (folders.artifacts / job.id / "attempt-1").mkdir()
    retry(db, job.id, "checkpoint")
    taken = claim(db, worker="worker", device="cpu", lease_seconds=60)
    complete(db, taken.attempt_id, ENDS["failed"], retry_delay_seconds=0)
    discard_superseded(folders.artifacts, job.id, db)
    (left,) = (folders.artifacts / job.id).iterdir()
    assert left.name.startswith("metrics-")
    with db.read() as tx:
        assert metrics.last_iteration(tx, jobs.get(tx, job.id)) == 2000


def test_nothing_is_archived_where_the_api_does_not_read_it(
    archiver, recorded_job, is_archived, folders, db, tmp_path, caplog
):
    job = recorded_job()
    (folders.artifacts / directory.MARK).rename(tmp_path / "mark")
    archiver().run(60)
    assert not is_archived(job)
    directory.claim(db, tmp_path / "elsewhere")
    (tmp_path / "mark").rename(folders.artifacts / directory.MARK)
    archiver().run(60)
    assert not is_archived(job)
    assert "is not where the API reads artifacts" in caplog.text
    directory.claim(db, folders.artifacts)
    archiver().run(60)
    assert is_archived(job)


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)  # what is shown is the disk's part
def test_a_directory_that_cannot_be_marked_is_claimed_by_nobody(db, tmp_path, caplog):
    (tmp_path / "file").touch()
    directory.claim(db, tmp_path / "file")
    assert "could not be marked" in caplog.text
    with db.read() as tx:
        assert not directory.is_claimed(tx, tmp_path / "file")


def test_a_worker_archives_when_it_starts(db, folders, recorded_job, start_worker, is_archived):
    directory.claim(db, folders.artifacts)
    job = recorded_job()
    start_worker(keep_iterations_days=0)
    deadline = time.monotonic() + 60
    while not is_archived(job):
        assert time.monotonic() < deadline, "it was not archived"
        time.sleep(0.01)
