import threading
import time

import numpy as np
import orjson
import pytest

from epochd.contract.job import JobPatch, OptimizerPatch
from epochd.contract.spec import JobSpec
from epochd.errors import AttemptLostError, DatabaseUnavailableError
from epochd.jobs.amend import amend
from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import Outcome, complete, lose
from epochd.jobs.pause import pause, resume
from epochd.jobs.submit import submit
from epochd.store import attempts, events, jobs, metrics
from epochd.store.database import Database
from epochd.training.diagnosis import Diagnosis
from epochd.training.events import AmendmentApplied, EpochCompleted, IterationsCompleted
from epochd.worker.batch import Began
from epochd.worker.checkpointer import CheckpointFailed, CheckpointSaved
from epochd.worker.order import AttemptOrder
from epochd.worker.recorder import PORTION_NOTES, Recorder

PER_EPOCH = 8


@pytest.fixture
def next_order(database, database_url, folders):
    """Claim the job, as an attempt's order."""

    def make():
        taken = claim(database, worker="worker-1", device="cpu", lease_seconds=30)
        return AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=30)

    return make


@pytest.fixture
def order(database, next_order):
    """A claimed job of 8 iterations an epoch."""
    submit(database, JobSpec.model_validate({"dataset": "iris", "epochs": 500, "batch_size": 16}))
    return next_order()


@pytest.fixture
def resumed(database, order, next_order):
    """The second attempt of a job whose first one recorded three epochs."""
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1, 2, 3)
    lose(database, order.attempt_id, "It was killed.", retry_delay_seconds=0)
    return next_order()


FROM_SCRATCH = Began(epoch=0, iteration=0, last_epoch=None, elapsed_seconds=0.0, restored=None)


def epoch_of(number, loss=None):
    """What the engine yields for an epoch: its iterations, then the epoch."""
    first = (number - 1) * PER_EPOCH + 1
    values = np.arange(first, first + PER_EPOCH, dtype=np.float32)
    nothing = Diagnosis("undetermined", None, "Too early to say.")
    return [
        IterationsCompleted(number, first, values, values, values, values),
        EpochCompleted(
            epoch=number,
            iteration=number * PER_EPOCH,
            metrics={"train_loss": 1.0 / number if loss is None else loss},
            learning_rate=0.001,
            seconds=0.1,
            is_best=True,
            early_stopping=None,
            diagnosis=nothing,
        ),
    ]


def record_epochs(recorder, *numbers, loss=None):
    for number in numbers:
        for event in epoch_of(number, loss):
            recorder.record(event)


def after_epoch(number):
    """Training resumes from a checkpoint that attempt 1 saved at the end of this epoch."""
    restored = {
        "epoch": number,
        "iteration": number * PER_EPOCH,
        "attempt": 1,
        "saved_at": "2026-01-31T09:00:00Z",
    }
    return Began(
        epoch=number,
        iteration=number * PER_EPOCH,
        last_epoch=epoch_of(number)[1],
        elapsed_seconds=100.0,
        restored={**restored, "skipped": []},
    )


def log_of(database, order, *types):
    with database.read() as tx:
        found = events.after(tx, order.job_number, 0, 10_000)
    return [event for event in found if event.type in types]


def attempt_of(database, order):
    with database.read() as tx:
        return attempts.get(tx, order.attempt_id)


def recorded(database, order):
    with database.read() as tx:
        job = jobs.get(tx, order.job_id)
        columns = orjson.loads(metrics.iterations_json(tx, job, limit=100_000))["columns"]
        epochs, _ = metrics.epochs(tx, job, limit=100_000)
        announced = [
            event for event in events.after(tx, job.number, 0, 10_000) if event.type == "epoch.completed"
        ]
    return job, columns, epochs, announced


def check_complete(database, order, epochs_trained):
    job, columns, epochs, announced = recorded(database, order)
    numbers = list(range(1, epochs_trained * PER_EPOCH + 1))
    assert columns["iteration"] == numbers
    assert columns["train_loss"] == numbers
    assert [one.epoch for one in epochs] == list(range(1, epochs_trained + 1))
    assert [one.is_best for one in epochs] == [False] * (epochs_trained - 1) + [True]
    assert [event.data["epoch"] for event in announced] == list(range(1, epochs_trained + 1))
    assert [event.iteration for event in announced] == [PER_EPOCH * (n + 1) for n in range(epochs_trained)]
    assert (job.epoch, job.iteration) == (epochs_trained, epochs_trained * PER_EPOCH)


def test_everything_is_written_once_when_the_recorder_is_left(database, order):
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        for number in range(1, 301):
            for event in epoch_of(number):
                recorder.record(event)
    check_complete(database, order, 300)


def test_a_backlog_is_written_in_full_portions_at_once(database, order):
    epochs = PORTION_NOTES - 1
    recorder = Recorder(database, order, "cpu")
    recorder.record(FROM_SCRATCH)
    record_epochs(recorder, *range(1, epochs + 1))
    with recorder:
        pass
    assert attempt_of(database, order).writes == 2
    with database.read() as tx:
        assert jobs.get(tx, order.job_id).epoch == epochs


def test_more_than_a_portion_is_written_without_a_pause(database, order, monkeypatch):
    monkeypatch.setattr("epochd.worker.recorder.WRITE_EVERY_SECONDS", 1000.0)
    monkeypatch.setattr("epochd.worker.recorder.MAX_WRITE_EVERY_SECONDS", 1000.0)
    monkeypatch.setattr("epochd.worker.recorder.BUSY_WRITE_EVERY_SECONDS", 1000.0)
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        while recorder.recorded == (0, 0) and not attempt_of(database, order).writes:
            time.sleep(0.01)
        record_epochs(recorder, *range(1, PORTION_NOTES))
        while recorder.recorded[0] < PORTION_NOTES // 2 - 1:
            time.sleep(0.01)


def test_what_was_recorded_while_the_database_was_away_comes_after_it_is_back(database, database_url, order):
    impatient = Database(database_url, busy_seconds=0.2)
    failed = threading.Event()

    class Watched(Recorder):
        def _write(self):
            try:
                super()._write()
            except Exception:
                failed.set()
                raise

    with Watched(impatient, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        for event in epoch_of(1):
            recorder.record(event)
        with database.write() as tx:
            # Whoever holds the attempt's row, or SQLite's write lock, keeps the recorder out.
            attempts.renew(tx, order.attempt_id, 30)
            failed.clear()
            for number in range(2, 101):
                for event in epoch_of(number):
                    recorder.record(event)
            assert failed.wait(60), "the recorder was not kept out"
            assert recorder.control.leave is None, "training goes on"
    impatient.close()
    check_complete(database, order, 100)


def test_a_recorder_whose_attempt_was_given_away_writes_nothing_more(database, order):
    with pytest.raises(AttemptLostError), Recorder(database, order, "cpu") as recorder:
        lose(database, order.attempt_id, "It was silent.", retry_delay_seconds=0)
        recorder.record(FROM_SCRATCH)
        for event in epoch_of(1):
            recorder.record(event)
    assert recorder.control.lost
    job, columns, epochs, _ = recorded(database, order)
    assert (job.status, job.iteration, columns["iteration"], epochs) == ("queued", 0, [], [])


def test_the_recorder_hears_of_a_cancellation(database, order):
    cancel(database, order.job_id, keep="last", grace_seconds=30)
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        for event in epoch_of(1):
            recorder.record(event)
    assert (recorder.control.leave, recorder.control.cancel_keep) == ("cancel", "last")


def test_a_job_shows_what_it_showed_until_training_begins_again(database, resumed):
    with Recorder(database, resumed, "cpu"):
        while not attempt_of(database, resumed).writes:  # a write that renews the lease, and no more
            time.sleep(0.01)
    with database.read() as tx:
        row = jobs.get(tx, resumed.job_id)
    attempt = attempt_of(database, resumed)
    assert (row.epoch, row.progress["iteration"], row.metrics) == (3, 24, {"train_loss": 1 / 3})
    assert (attempt.first_iteration, attempt.last_iteration, attempt.restored) == (1, 0, None)


def test_a_resumed_attempt_says_what_it_restored_and_the_job_shows_that(database, resumed):
    began = after_epoch(2)
    with Recorder(database, resumed, "cpu") as recorder:
        recorder.record(began)
    with database.read() as tx:
        row = jobs.get(tx, resumed.job_id)
        attempt = attempts.get(tx, resumed.attempt_id)
    assert (row.epoch, row.iteration, row.progress["iteration"]) == (2, 16, 16)
    assert row.metrics == {"train_loss": 0.5}
    assert row.progress["elapsed_seconds"] >= 100
    assert (attempt.first_iteration, attempt.last_iteration, attempt.restored) == (17, 16, began.restored)
    [event] = log_of(database, resumed, "checkpoint.restored")
    assert (event.attempt, event.iteration) == (2, 16)
    assert event.data == {
        "attempt": 2,
        "epoch": 2,
        "iteration": 16,
        "saved_by_attempt": 1,
        "saved_at": "2026-01-31T09:00:00Z",
        "skipped": [],
    }
    # It has recorded nothing yet, so it replaces nothing.
    assert recorded(database, resumed)[1]["iteration"] == list(range(1, 25))


def test_the_time_left_is_told_by_the_pace_of_the_attempt_itself(database, resumed):
    with Recorder(database, resumed, "cpu") as recorder:
        recorder.record(after_epoch(2))
        while recorder.recorded != (2, 16):
            time.sleep(0.01)
        with database.read() as tx:
            assert jobs.get(tx, resumed.job_id).progress["eta_seconds"] is None
        record_epochs(recorder, 3, 4)
    with database.read() as tx:
        progress = jobs.get(tx, resumed.job_id).progress
    pace = (progress["elapsed_seconds"] - 100) / 16
    assert progress["eta_seconds"] == pytest.approx(pace * (500 * PER_EPOCH - 32), abs=0.5)


def test_epochs_trained_again_are_recorded_again_but_not_announced_again(database, resumed):
    with Recorder(database, resumed, "cpu") as recorder:
        recorder.record(after_epoch(1))
        record_epochs(recorder, 2, 3, 4)
    check_complete(database, resumed, 4)
    announced = log_of(database, resumed, "epoch.completed")
    assert [event.attempt for event in announced] == [1, 1, 1, 2]
    with database.read() as tx:
        again, _ = metrics.epochs(tx, jobs.get(tx, resumed.job_id), attempt=2)
    assert [row.epoch for row in again] == [2, 3, 4]


def test_an_epoch_that_comes_out_differently_is_announced_again(database, resumed):
    with Recorder(database, resumed, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
        record_epochs(recorder, 2, loss=7.0)
        record_epochs(recorder, 3)
    announced = [
        (event.attempt, event.data["epoch"]) for event in log_of(database, resumed, "epoch.completed")
    ]
    assert announced == [(1, 1), (1, 2), (1, 3), (2, 2)]
    assert log_of(database, resumed, "epoch.completed")[-1].data["train_loss"] == 7


def test_what_a_third_attempt_trains_again_is_compared_with_what_was_last_announced(
    database, resumed, next_order
):
    with Recorder(database, resumed, "cpu") as recorder:
        recorder.record(after_epoch(1))
        record_epochs(recorder, 2, loss=7.0)
    lose(database, resumed.attempt_id, "It was killed.", retry_delay_seconds=0)
    third = next_order()
    with Recorder(database, third, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
        record_epochs(recorder, 2, loss=7.0)
        record_epochs(recorder, 3)
    announced = [
        (event.attempt, event.data["epoch"]) for event in log_of(database, resumed, "epoch.completed")
    ]
    # Epoch 3 of the first attempt was no part of the curve any more, but it is in the log.
    assert announced == [(1, 1), (1, 2), (1, 3), (2, 2)]


def test_an_amendment_is_announced_once_where_it_took_effect(database, order, next_order):
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
        amend(database, order.job_id, JobPatch(optimizer=OptimizerPatch(learning_rate=0.5), epochs=200))
        while not (heard := list(recorder.control.new_amendments())):
            time.sleep(0.01)
        recorder.record(AmendmentApplied(heard[0].number, 2, 9))
        record_epochs(recorder, 2)
        recorder.record(AmendmentApplied(heard[1].number, 2, 16))
    assert [(one.field, one.value) for one in heard] == [("learning_rate", 0.5), ("epochs", 200)]
    lose(database, order.attempt_id, "It was killed.", retry_delay_seconds=0)
    again = next_order()
    assert [(one.number, one.epoch, one.iteration) for one in again.amendments] == [(1, 2, 9), (2, 2, 16)]
    assert again.spec["epochs"] == 500
    with Recorder(database, again, "cpu") as recorder:
        recorder.record(after_epoch(1))
        recorder.record(AmendmentApplied(1, 2, 9))
        record_epochs(recorder, 2)
        recorder.record(AmendmentApplied(2, 2, 16))
        assert list(recorder.control.new_amendments()) == []
    told = [(event.iteration, event.data) for event in log_of(database, order, "spec.amended")]
    assert told == [
        (9, {"changes": {"optimizer.learning_rate": 0.5}, "epoch": 2, "iteration": 9}),
        (16, {"changes": {"epochs": 200}, "epoch": 2, "iteration": 16}),
    ]


def test_checkpoints_are_announced_where_they_were_taken(database, order):
    saved = CheckpointSaved(epoch=1, iteration=8, bytes=1000, reason="epoch", is_best=True)
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
        recorder.record(saved)
        recorder.record(CheckpointFailed("disk_full", "The disk is full."))
    [one, other] = log_of(database, order, "checkpoint.saved", "checkpoint.failed")
    assert (one.type, one.iteration, one.data) == ("checkpoint.saved", 8, saved.as_dict())
    assert (other.type, other.data["code"]) == ("checkpoint.failed", "disk_full")


def test_the_recorder_hears_of_a_pause_and_of_its_withdrawal(database, order):
    with Recorder(database, order, "cpu") as recorder:
        pause(database, order.job_id)
        while recorder.control.leave != "pause":
            time.sleep(0.01)
        resume(database, order.job_id)
        while recorder.control.leave is not None:
            time.sleep(0.01)


def test_a_cancellation_that_came_before_the_attempt_is_known_at_once(database, order, next_order):
    with Recorder(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
    complete(database, order.attempt_id, Outcome("paused"), retry_delay_seconds=0)
    resume(database, order.job_id)
    cancel(database, order.job_id, keep="last", grace_seconds=30)
    assert Recorder(database, next_order(), "cpu").control.cancel_keep == "last"


def test_a_write_whose_answer_was_lost_is_not_made_twice(database, order):
    class Unlucky(Recorder):
        answers_lost = 0

        def _written(self, control, asked):
            if self._write_number == 2 and not self.answers_lost:
                self.answers_lost = 1
                raise DatabaseUnavailableError("the connection broke after the commit")
            super()._written(control, asked)

    with Unlucky(database, order, "cpu") as recorder:
        recorder.record(FROM_SCRATCH)
        record_epochs(recorder, 1)
        while recorder.recorded != (1, 8):
            time.sleep(0.01)
        record_epochs(recorder, 2)
    assert recorder.answers_lost
    check_complete(database, order, 2)


def test_the_recorder_knows_how_far_the_database_is(database, resumed):
    recorder = Recorder(database, resumed, "cpu")
    # Not the job's curve: what this attempt trains past its checkpoint is not recorded because an earlier one was.
    assert recorder.recorded == (0, 0)
    with recorder:
        recorder.record(after_epoch(2))
        record_epochs(recorder, 3, 4)
    assert recorder.recorded == (4, 32)
