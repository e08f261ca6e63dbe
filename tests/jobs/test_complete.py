import threading

import pytest
from sqlalchemy import text

from epochd.errors import DataError, InfrastructureError
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, error_dict, give_back, lose
from epochd.jobs.pause import pause
from epochd.store import artifacts, attempts, counters, events, jobs
from epochd.store.artifacts import NewArtifact

WEIGHTS = NewArtifact(
    "model.safetensors", "job/attempt-1/model.safetensors", "application/octet-stream", 10, "ab"
)
CHOSEN = {"epoch": 2, "iteration": 16, "metric": "validation_loss", "value": 0.5, "reason": "best"}


def job_row(database, job):
    with database.read() as tx:
        return jobs.get(tx, job.id)


def event_types(database, job):
    with database.read() as tx:
        return [event.type for event in events.after(tx, job.number, 0, 100)]


def failed(error):
    return Outcome("failed", "failed", error=error_dict(error))


def test_success_keeps_weights_and_says_why_it_stopped(database, queue, take):
    job = queue()
    outcome = Outcome("succeeded", "early_stopped", CHOSEN, artifacts=(WEIGHTS,))
    assert complete(database, take().attempt_id, outcome, retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.stop_reason, row.selected_checkpoint) == ("succeeded", "early_stopped", CHOSEN)
    assert row.finished_at is not None
    assert event_types(database, job) == ["job.queued", "job.started", "job.succeeded"]
    with database.read() as tx:
        assert [one.name for one in artifacts.of_job(tx, job.number)] == ["model.safetensors"]


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)  # SQLite has one writer at a time
def test_whoever_waits_for_a_job_keeps_nobody_from_ending_another(database, queue, take):
    """All add to the same counters."""
    held, _ = queue(), queue()
    first, second = take(), take()
    lost = threading.Thread(
        target=lose, args=(database, first.attempt_id, "It died."), kwargs={"retry_delay_seconds": 0}
    )
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    with database.write() as tx:
        assert jobs.by_number(tx, held.number, lock=True)
        lost.start()
        with database.read() as other:
            while not other.execute(waiting).scalar_one():
                other.execute(text("SELECT pg_stat_clear_snapshot()"))
        assert give_back(database, second.attempt_id, "It ends.")
    lost.join()
    with database.read() as tx:
        assert counters.read(tx) == {"attempts_lost": 1, "attempts_released": 1}


def test_an_attempt_ends_once(database, queue, take):
    job = queue()
    attempt = take().attempt_id
    assert complete(database, attempt, Outcome("succeeded", "completed"), retry_delay_seconds=0)
    assert not complete(database, attempt, failed(DataError("late")), retry_delay_seconds=0)
    assert not lose(database, attempt, "late", retry_delay_seconds=0)
    assert not give_back(database, attempt, "late")
    assert job_row(database, job).status == "succeeded"
    assert event_types(database, job).count("job.succeeded") == 1


def test_a_lost_attempt_is_made_again_until_the_spec_says_enough(database, queue, take):
    job = queue(max_attempts=2)
    assert lose(database, take().attempt_id, "It died.", retry_delay_seconds=0)
    assert job_row(database, job).status == "queued"
    second = take()
    assert second.attempt == 2
    assert lose(database, second.attempt_id, "It died.", retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.error["category"], row.error["code"]) == (
        "failed",
        "infrastructure",
        "attempts_exhausted",
    )
    assert event_types(database, job) == [
        "job.queued",
        "job.started",
        "attempt.lost",
        "job.started",
        "job.failed",
    ]


def test_a_retry_waits_for_its_delay(database, queue, take):
    queue()
    lose(database, take().attempt_id, "It died.", retry_delay_seconds=3600)
    assert take() is None


@pytest.mark.parametrize(
    ("error", "status"), [(DataError("bad"), "failed"), (InfrastructureError("away"), "queued")]
)
def test_only_retryable_errors_are_tried_again(database, queue, take, error, status):
    job = queue()
    complete(database, take().attempt_id, failed(error), retry_delay_seconds=0)
    assert job_row(database, job).status == status


def test_a_job_given_back_counts_no_failure(database, queue, take):
    job = queue(max_attempts=1)
    for _ in range(3):
        assert give_back(database, take().attempt_id, "The worker was shut down.")
    assert job_row(database, job).status == "queued"
    assert take().attempt == 4


@pytest.mark.parametrize(
    "end", [lambda db, a: lose(db, a, "gone", retry_delay_seconds=0), lambda db, a: give_back(db, a, "bye")]
)
def test_a_cancelled_job_is_not_queued_again(database, queue, take, end):
    job = queue()
    attempt = take().attempt_id
    cancel(database, job.id, keep="best", grace_seconds=30)
    assert end(database, attempt)
    assert job_row(database, job).status == "cancelled"


@pytest.mark.parametrize(
    ("error", "status"), [(InfrastructureError("away"), "cancelled"), (DataError("bad"), "failed")]
)
def test_a_failure_that_might_be_retried_ends_a_job_that_nobody_wants_any_more(
    database, queue, take, error, status
):
    job = queue()
    attempt = take().attempt_id
    cancel(database, job.id, keep="best", grace_seconds=30)
    assert complete(database, attempt, failed(error), retry_delay_seconds=0)
    assert job_row(database, job).status == status
    assert take() is None


KILLED = [
    lambda db, a: lose(db, a, "gone", retry_delay_seconds=0),
    lambda db, a: give_back(db, a, "bye"),
    lambda db, a: complete(db, a, Outcome("released"), retry_delay_seconds=0),
    lambda db, a: complete(db, a, failed(InfrastructureError("away")), retry_delay_seconds=0),
]


@pytest.mark.parametrize("end", KILLED)
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_cancelled_job_whose_weights_are_to_be_kept_goes_to_another_worker(
    database, queue, take, train, end, keep
):
    job = queue()
    taken = take()
    train(taken)
    cancel(database, job.id, keep=keep, grace_seconds=30)
    assert end(database, taken.attempt_id)
    assert job_row(database, job).status == "queued"
    assert event_types(database, job)[-1] == "attempt.lost"
    second = take()
    assert (second.attempt, second.job.cancel_keep, second.recorded.iteration) == (2, keep, 16)


@pytest.mark.parametrize("end", KILLED)
def test_a_cancelled_job_of_which_nothing_is_to_be_kept_ends(database, queue, take, train, end):
    job = queue()
    taken = take()
    train(taken)
    cancel(database, job.id, keep="nothing", grace_seconds=30)
    assert end(database, taken.attempt_id)
    assert job_row(database, job).status == "cancelled"


def test_the_weights_of_a_cancelled_job_are_tried_as_often_as_the_spec_allows(database, queue, take, train):
    job = queue(max_attempts=2)
    taken = take()
    train(taken)
    cancel(database, job.id, keep="best", grace_seconds=30)
    lose(database, taken.attempt_id, "gone", retry_delay_seconds=0)
    full = failed(InfrastructureError("full", code="disk_full"))
    complete(database, take().attempt_id, full, retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.error["code"]) == ("cancelled", "disk_full")


def test_a_cancelled_job_whose_weights_its_runner_brought_along_is_not_tried_again(
    database, queue, take, train
):
    job = queue()
    taken = take()
    train(taken)
    cancel(database, job.id, keep="best", grace_seconds=30)
    error = error_dict(InfrastructureError("full", code="disk_full"))
    outcome = Outcome("failed", "failed", CHOSEN, error, artifacts=(WEIGHTS,))
    complete(database, taken.attempt_id, outcome, retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.selected_checkpoint) == ("cancelled", CHOSEN)


@pytest.mark.parametrize(("keep", "status"), [("best", "queued"), ("nothing", "cancelled")])
def test_a_cancellation_that_came_while_a_pause_was_under_way(database, queue, take, train, keep, status):
    job = queue()
    taken = take()
    train(taken)
    pause(database, job.id)
    cancel(database, job.id, keep=keep, grace_seconds=7)
    assert complete(database, taken.attempt_id, Outcome("paused"), retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.cancel_keep, row.cancel_grace_seconds) == (status, keep, 7)
    assert event_types(database, job)[2:] == ["job.paused", f"job.{status}"]


def test_an_attempt_given_back_by_its_runner_goes_on_at_once(database, queue, take, train):
    job = queue(max_attempts=1)
    taken = take()
    train(taken)
    assert complete(database, taken.attempt_id, Outcome("released"), retry_delay_seconds=3600)
    assert take().attempt == 2
    with database.read() as tx:
        assert attempts.of_job(tx, job.number)[0].outcome == "released"


def test_an_expired_lease_is_found_by_the_databases_clock(database, queue, take):
    queue()
    attempt = take(lease_seconds=0).attempt_id
    queue()
    take(lease_seconds=1000)
    with database.read() as tx:
        assert [one.id for one in attempts.expired(tx)] == [attempt]


def test_a_cancelled_job_says_why_no_weights_were_kept(database, queue, take):
    job = queue()
    attempt = take().attempt_id
    cancel(database, job.id, keep="best", grace_seconds=30)
    complete(database, attempt, failed(InfrastructureError("full", code="disk_full")), retry_delay_seconds=0)
    row = job_row(database, job)
    assert (row.status, row.error["code"], row.selected_checkpoint) == ("cancelled", "disk_full", None)
