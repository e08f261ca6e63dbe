import pytest

from epochd.errors import ConflictError, NotFoundError
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, lose
from epochd.jobs.delete import delete
from epochd.jobs.pause import pause, resume
from epochd.jobs.retry import retry
from epochd.store import artifacts, attempts, events, jobs
from epochd.store.artifacts import NewArtifact

WEIGHTS = NewArtifact("model.safetensors", "job/attempt-2/model.safetensors", "application/x", 10, "ab")


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


def test_what_is_paused_and_leaves_nothing_behind_ends_at_once(database, queue, types):
    job = queue()
    pause(database, job.id)
    assert cancel(database, job.id, keep="best", grace_seconds=30).status == "cancelled"
    assert types(job)[1:] == ["job.paused", "job.cancelled"]


@pytest.fixture
def idle(database, queue, take, train):
    """A job that has trained two epochs, and that nobody runs."""

    def make(status):
        job = queue()
        taken = take()
        train(taken)
        if status == "paused":
            pause(database, job.id)
            complete(database, taken.attempt_id, Outcome("paused"), retry_delay_seconds=0)
        else:
            lose(database, taken.attempt_id, "It died.", retry_delay_seconds=3600)
        return job

    return make


@pytest.mark.parametrize("status", ["paused", "queued"])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_what_has_trained_is_handed_to_a_worker_to_bring_its_weights_out(
    database, idle, take, told, status, keep
):
    job = idle(status)
    asked = cancel(database, job.id, keep=keep, grace_seconds=7)
    assert (asked.status, asked.cancel_keep, asked.cancel_grace_seconds) == ("queued", keep, 7)
    assert asked.cancel_requested_at is not None
    assert told(job)[-1].type == ("job.queued" if status == "paused" else "attempt.lost")
    taken = take()  # at once, whatever the delay of the retry was
    assert taken.job.cancel_keep == keep
    with database.read() as tx:
        assert attempts.control(tx, taken.attempt_id).cancel_keep == keep
    outcome = Outcome("cancelled", "cancelled", {"epoch": 2}, artifacts=(WEIGHTS,))
    complete(database, taken.attempt_id, outcome, retry_delay_seconds=0)
    with database.read() as tx:
        assert jobs.get(tx, job.id).status == "cancelled"
        assert [one.name for one in artifacts.of_job(tx, job.number)] == ["model.safetensors"]


@pytest.mark.parametrize("status", ["paused", "queued"])
def test_with_nothing_to_keep_it_ends_at_once(database, idle, take, told, status):
    job = idle(status)
    row = cancel(database, job.id, keep="nothing", grace_seconds=30)
    assert (row.status, row.finished_at is not None) == ("cancelled", True)
    assert told(job)[-1].data["metrics"] == {"train_loss": 1.0}
    assert take() is None


def test_asking_again_for_nothing_ends_at_once_what_waits_for_a_worker(database, idle, take):
    job = idle("paused")
    first = cancel(database, job.id, keep="best", grace_seconds=30)
    again = cancel(database, job.id, keep="last", grace_seconds=5)
    assert (again.status, again.cancel_keep, again.cancel_requested_at) == (
        "queued",
        "last",
        first.cancel_requested_at,
    )
    assert cancel(database, job.id, keep="nothing", grace_seconds=30).status == "cancelled"
    assert take() is None


def test_what_waits_to_have_its_weights_brought_out_is_not_paused(database, idle):
    job = idle("paused")
    cancel(database, job.id, keep="best", grace_seconds=30)
    with pytest.raises(ConflictError) as caught:
        pause(database, job.id)
    assert caught.value.code == "cancel_requested"
    assert resume(database, job.id).status == "queued"


def test_a_job_begun_anew_leaves_nothing_behind(database, idle):
    job = idle("paused")
    cancel(database, job.id, keep="nothing", grace_seconds=0)
    retry(database, job.id, "scratch")
    assert cancel(database, job.id, keep="best", grace_seconds=0).status == "cancelled"


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
    directories = (tmp_path / "artifacts", tmp_path / "checkpoints")
    with pytest.raises(ConflictError, match="cancel it first"):
        delete(database, job.id, *directories)
    pause(database, job.id)
    with pytest.raises(ConflictError, match="cancel it first"):
        delete(database, job.id, *directories)
    cancel(database, job.id, keep="best", grace_seconds=30)
    for directory in directories:
        (directory / job.id / "attempt-1").mkdir(parents=True)
        (directory / job.id / "attempt-1" / "file").write_bytes(b"weights")
    delete(database, job.id, *directories)
    assert [list(directory.iterdir()) for directory in directories] == [[], []]
    with database.read() as tx, pytest.raises(NotFoundError):
        jobs.get(tx, job.id)
