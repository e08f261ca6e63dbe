import pytest

from epochd.errors import ConflictError, NotFoundError
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete
from epochd.jobs.delete import delete
from epochd.store import attempts, events, jobs


def test_what_is_queued_ends_at_once(database, queue, take):
    job = queue()
    row = cancel(database, job.id, keep="best", grace_seconds=30)
    assert (row.status, row.stop_reason) == ("cancelled", "cancelled")
    assert row.finished_at is not None
    assert row.cancel_requested_at is not None
    assert take() is None
    with database.read() as tx:
        assert [event.type for event in events.after(tx, job.number, 0, 9)] == ["job.queued", "job.cancelled"]


def test_what_runs_is_asked_and_stays_running(database, queue, take):
    job = queue()
    taken = take()
    row = cancel(database, job.id, keep="last", grace_seconds=7)
    assert row.status == "running"
    assert row.cancel_requested_at is not None
    with database.write() as tx:
        assert attempts.renew(tx, taken.attempt_id, 30).cancel_keep == "last"
        control = attempts.control(tx, taken.attempt_id)
    assert (control.cancel_keep, control.cancel_grace_seconds) == ("last", 7)


def test_cancelling_twice_is_no_error(database, queue):
    job = queue()
    cancel(database, job.id, keep="best", grace_seconds=30)
    assert cancel(database, job.id, keep="best", grace_seconds=30).status == "cancelled"


def test_what_is_done_cannot_be_cancelled(database, queue, take):
    job = queue()
    complete(database, take().attempt_id, Outcome("succeeded", "completed"), retry_delay_seconds=0)
    with pytest.raises(ConflictError, match="succeeded"):
        cancel(database, job.id, keep="best", grace_seconds=30)


def test_an_unknown_job(database):
    with pytest.raises(NotFoundError):
        cancel(database, "job_unknown", keep="best", grace_seconds=30)


def test_delete_removes_rows_and_files(database, queue, tmp_path):
    job = queue()
    with pytest.raises(ConflictError, match="cancel it first"):
        delete(database, job.id, tmp_path)
    cancel(database, job.id, keep="best", grace_seconds=30)
    (tmp_path / job.id / "attempt-1").mkdir(parents=True)
    (tmp_path / job.id / "attempt-1" / "model.safetensors").write_bytes(b"weights")
    delete(database, job.id, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with database.read() as tx, pytest.raises(NotFoundError):
        jobs.get(tx, job.id)
