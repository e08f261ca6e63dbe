import pytest

from epochd.errors import ConflictError, DataError, InfrastructureError, NotFoundError
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, error_dict, give_back, lose
from epochd.jobs.pause import pause, resume
from epochd.store import attempts


def asks_to_pause(database, taken):
    with database.read() as tx:
        return attempts.control(tx, taken.attempt_id).pause


def report(database, taken, status):
    return complete(database, taken.attempt_id, Outcome(status), retry_delay_seconds=0)


def test_what_is_queued_is_paused_at_once_and_not_claimed(database, queue, take, types):
    job = queue()
    assert pause(database, job.id).status == "paused"
    assert take() is None
    paused = resume(database, job.id)
    assert paused.status == "queued"
    assert take().job.id == job.id
    assert types(job) == ["job.queued", "job.paused", "job.resumed", "job.started"]


def test_what_runs_is_asked_and_paused_when_its_attempt_reports(database, queue, take, train, row, told):
    job = queue()
    taken = take()
    train(taken)
    asked = pause(database, job.id)
    assert (asked.status, asked.pause_requested_at is not None) == ("running", True)
    assert asks_to_pause(database, taken)
    assert report(database, taken, "paused")
    paused = row(job)
    assert (paused.status, paused.pause_requested_at, paused.worker, paused.device) == ("paused",) + (
        None,
    ) * 3
    assert (paused.stop_reason, paused.finished_at, paused.epoch, paused.shown_iteration) == (
        None,
        None,
        2,
        16,
    )
    newest = told(job)[-1]
    assert (newest.type, newest.data) == ("job.paused", {"epoch": 2, "iteration": 16, "attempt": 1})
    assert take() is None
    resume(database, job.id)
    assert told(job)[-1].data == {"epoch": 2, "iteration": 16}
    second = take()
    assert (second.attempt, second.recorded.iteration, second.recorded.epoch) == (2, 16, 2)
    # The new attempt has no iteration of its own yet, but the job shows how far it is.
    assert (second.job.iteration, second.job.shown_iteration, second.job.epoch) == (0, 16, 2)
    with database.read() as tx:
        assert [one.outcome for one in attempts.of_job(tx, job.number)] == ["paused", None]


def test_asking_again_changes_nothing(database, queue, take, row, types):
    job = queue()
    pause(database, job.id)
    again = pause(database, job.id)
    assert pause(database, job.id) == again
    resume(database, job.id)
    again = resume(database, job.id)
    assert resume(database, job.id) == again
    take()
    assert resume(database, job.id).status == "running"
    asked = pause(database, job.id)
    assert pause(database, job.id) == asked
    assert types(job) == ["job.queued", "job.paused", "job.resumed", "job.started"]


def test_a_pause_can_be_withdrawn_before_it_happens(database, queue, take, types):
    job = queue()
    taken = take()
    pause(database, job.id)
    assert resume(database, job.id).pause_requested_at is None
    assert not asks_to_pause(database, taken)
    assert types(job) == ["job.queued", "job.started"]


def test_a_pause_withdrawn_while_it_was_under_way_queues_the_job_at_once(database, queue, take, train, types):
    job = queue()
    taken = take()
    train(taken)
    pause(database, job.id)
    resume(database, job.id)
    assert report(database, taken, "paused")
    assert types(job)[2:] == ["job.paused", "job.resumed"]
    assert take().attempt == 2


@pytest.mark.parametrize(
    "end",
    [
        lambda db, taken: cancel(db, taken.job.id, keep="nothing", grace_seconds=0),
        lambda db, taken: complete(
            db, taken.attempt_id, Outcome("succeeded", "completed"), retry_delay_seconds=0
        ),
    ],
)
def test_what_ends_or_has_ended_is_not_paused(database, queue, take, end):
    job = queue()
    taken = take()
    end(database, taken)
    with pytest.raises(ConflictError) as caught:
        pause(database, job.id)
    assert caught.value.code in {"job_done", "cancel_requested"}


@pytest.mark.parametrize("ask", [pause, resume])
def test_what_is_done_is_neither_paused_nor_resumed(database, queue, ask):
    job = queue()
    cancel(database, job.id, keep="nothing", grace_seconds=0)
    with pytest.raises(ConflictError, match="is cancelled") as caught:
        ask(database, job.id)
    assert caught.value.code == "job_done"


@pytest.mark.parametrize("ask", [pause, resume])
def test_an_unknown_job(database, ask):
    with pytest.raises(NotFoundError):
        ask(database, "job_unknown")


@pytest.mark.parametrize("failure", ["lost", "retryable"])
def test_a_failure_while_a_pause_was_asked_for_leaves_the_job_paused(
    database, queue, take, row, told, types, failure
):
    job = queue(max_attempts=2)
    taken = take()
    pause(database, job.id)
    fail(database, taken, failure)
    assert (row(job).status, row(job).pause_requested_at) == ("paused", None)
    assert types(job)[2:] == ["attempt.lost", "job.paused"]
    assert told(job)[2].data["retry_in_seconds"] is None
    assert take() is None
    # It counted: the next one was the last chance, and a pause does not buy another.
    resume(database, job.id)
    taken = take()
    pause(database, job.id)
    fail(database, taken, failure)
    assert (row(job).status, row(job).pause_requested_at) == ("failed", None)


def fail(database, taken, failure):
    if failure == "lost":
        assert lose(database, taken.attempt_id, "It died.", retry_delay_seconds=3600)
    else:
        outcome = Outcome("failed", "failed", error=error_dict(InfrastructureError("away")))
        assert complete(database, taken.attempt_id, outcome, retry_delay_seconds=3600)


@pytest.mark.parametrize("back", ["released", "killed"])
def test_a_worker_that_shuts_down_while_a_pause_was_asked_for_leaves_the_job_paused(
    database, queue, take, row, types, back
):
    job = queue()
    taken = take()
    pause(database, job.id)
    if back == "released":
        assert report(database, taken, "released")
    else:
        assert give_back(database, taken.attempt_id, "The worker was shut down.")
    assert row(job).status == "paused"
    assert types(job)[2:] == ["job.paused"]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome("succeeded", "completed"), "succeeded"),
        (Outcome("failed", "failed", error=error_dict(DataError("bad"))), "failed"),
    ],
)
def test_a_training_that_ended_by_itself_is_not_paused(database, queue, take, row, outcome, status):
    job = queue()
    taken = take()
    pause(database, job.id)
    assert complete(database, taken.attempt_id, outcome, retry_delay_seconds=0)
    assert (row(job).status, row(job).pause_requested_at) == (status, None)


def test_an_attempt_that_was_lost_reports_no_pause(database, queue, take, row):
    job = queue()
    taken = take()
    lose(database, taken.attempt_id, "It died.", retry_delay_seconds=0)
    pause(database, job.id)
    assert not report(database, taken, "paused")
    resume(database, job.id)
    take()
    assert not report(database, taken, "paused")
    assert (row(job).status, row(job).attempt) == ("running", 2)
