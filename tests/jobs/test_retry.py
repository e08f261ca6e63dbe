import pytest

from epochd.contract.job import JobPatch
from epochd.errors import ConflictError, DataError, NotFoundError
from epochd.jobs.amend import amend
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, error_dict, give_back, lose
from epochd.jobs.pause import pause
from epochd.jobs.retry import retry
from epochd.store import amendments, artifacts, metrics
from epochd.store.artifacts import NewArtifact

WEIGHTS = NewArtifact("model.safetensors", "job/attempt-1/model.safetensors", "application/x", 10, "ab")
CHOSEN = {"epoch": 2, "iteration": 16, "metric": "validation_loss", "value": 0.5, "reason": "best"}
FAILED = Outcome("failed", "failed", CHOSEN, error_dict(DataError("bad")), artifacts=(WEIGHTS,))


@pytest.fixture
def failed(database, queue, take, train):
    """A job that has trained two epochs, and then failed for good."""
    job = queue(max_attempts=2)
    taken = take()
    train(taken)
    complete(database, taken.attempt_id, FAILED, retry_delay_seconds=0)
    return job


@pytest.mark.parametrize("source", ["checkpoint", "scratch"])
def test_a_retried_job_is_queued_without_a_trace_of_its_end(database, failed, source, told, row):
    before = row(failed)
    assert (before.status, before.stop_reason, before.selected_checkpoint) == ("failed", "failed", CHOSEN)
    after = retry(database, failed.id, source)
    assert (after.status, after.attempt, after.retried_after) == ("queued", 1, 1)
    assert (after.stop_reason, after.error, after.finished_at, after.selected_checkpoint) == (None,) * 4
    newest = told(failed)[-1]
    assert (newest.type, newest.data) == ("job.queued", {"reason": "retry", "from": source})
    with database.read() as tx:
        assert artifacts.of_job(tx, failed.number) == []


def test_from_a_checkpoint_what_was_recorded_is_still_there(database, failed, take):
    job = retry(database, failed.id, "checkpoint")
    assert (job.epoch, job.shown_iteration, job.metrics) == (2, 16, {"train_loss": 1.0})
    taken = take()
    assert (taken.attempt, taken.recorded.iteration, taken.recorded.epoch) == (2, 16, 2)


def test_from_scratch_nothing_is_resumed_from_or_shown(database, failed, take, train, row):
    job = retry(database, failed.id, "scratch")
    assert (job.epoch, job.shown_iteration, job.metrics, job.progress) == (0, 0, None, None)
    taken = take()
    assert (taken.attempt, taken.recorded.segments, taken.recorded.epoch) == (2, (), 0)
    with database.read() as tx:
        assert metrics.epochs(tx, taken.job) == ([], None)
    train(taken, epochs=1)
    assert (row(job).epoch, row(job).shown_iteration) == (1, 8)
    # A later retry from a checkpoint resumes from what was recorded since.
    complete(database, taken.attempt_id, FAILED, retry_delay_seconds=0)
    retry(database, job.id, "checkpoint")
    assert take().recorded.segments == ((2, 1, 8),)


def test_events_of_one_attempt_never_go_back_in_iterations(database, failed, told):
    # A stream that is resumed at one of them would send iterations again.
    retry(database, failed.id, "scratch")
    pause(database, failed.id)
    stamps = [(event.attempt, event.iteration) for event in told(failed)]
    assert stamps == sorted(stamps)


def test_a_retry_allows_all_attempts_again(database, failed, take, row):
    retry(database, failed.id, "checkpoint")
    lose(database, take().attempt_id, "It died.", retry_delay_seconds=0)
    assert row(failed).status == "queued"
    lose(database, take().attempt_id, "It died.", retry_delay_seconds=0)
    assert (row(failed).status, row(failed).error["code"]) == ("failed", "attempts_exhausted")


def test_the_delay_before_a_retry_begins_anew_with_it(database, queue, take, told):
    job = queue(max_attempts=3)
    for _ in range(3):
        lose(database, take().attempt_id, "It died.", retry_delay_seconds=0)
    retry(database, job.id, "checkpoint")
    lose(database, take().attempt_id, "It died.", retry_delay_seconds=7)
    assert told(job)[-1].data["retry_in_seconds"] == 7


def test_a_cancelled_job_can_be_retried_and_is_no_longer_asked_to_end(database, queue, take, train, row):
    job = queue()
    taken = take()
    train(taken)
    cancel(database, job.id, keep="last", grace_seconds=5)
    complete(database, taken.attempt_id, Outcome("cancelled", "cancelled"), retry_delay_seconds=0)
    after = retry(database, job.id, "checkpoint")
    assert (after.cancel_requested_at, after.cancel_keep, after.cancel_grace_seconds) == (None,) * 3
    second = take()
    assert give_back(database, second.attempt_id, "The worker was shut down.")
    assert row(job).status == "queued"


def test_a_job_cancelled_before_anybody_claimed_it(database, queue, take):
    job = queue()
    cancel(database, job.id, keep="best", grace_seconds=5)
    retry(database, job.id, "checkpoint")
    assert take().attempt == 1


def test_what_has_succeeded_or_goes_on_cannot_be_retried(database, queue, take):
    job = queue()
    codes = []
    for step in (lambda: None, lambda: pause(database, job.id)):
        step()
        with pytest.raises(ConflictError) as caught:
            retry(database, job.id, "checkpoint")
        codes.append(caught.value.code)
    other = queue()
    taken = take()
    with pytest.raises(ConflictError, match="is running") as caught:
        retry(database, other.id, "checkpoint")
    codes.append(caught.value.code)
    complete(database, taken.attempt_id, Outcome("succeeded", "completed"), retry_delay_seconds=0)
    with pytest.raises(ConflictError, match="has succeeded") as caught:
        retry(database, other.id, "scratch")
    codes.append(caught.value.code)
    assert codes == ["job_not_done"] * 3 + ["job_succeeded"]
    with pytest.raises(NotFoundError):
        retry(database, "job_unknown", "checkpoint")


@pytest.mark.parametrize("source", ["checkpoint", "scratch"])
def test_amendments_are_kept_for_a_checkpoint_and_part_of_the_spec_from_scratch(
    database, queue, take, train, source
):
    job = queue()
    taken = take()
    train(taken)
    patch = JobPatch.model_validate({"epochs": 9, "optimizer": {"learning_rate": 0.5}})
    amend(database, job.id, patch)
    with database.write() as tx:
        amendments.applied(tx, job.number, 1, 2, 16)
    complete(database, taken.attempt_id, FAILED, retry_delay_seconds=0)
    retry(database, job.id, source)
    taken = take()
    assert (taken.job.spec["epochs"], taken.job.spec["optimizer"]["learning_rate"]) == (9, 0.5)
    if source == "checkpoint":
        assert taken.job.initial_spec["epochs"] == 3
        assert [(one.field, one.iteration) for one in taken.amendments] == [
            ("learning_rate", 16),
            ("epochs", None),
        ]
    else:
        assert (taken.job.initial_spec, taken.job.amendments, taken.amendments) == (None, 0, ())
