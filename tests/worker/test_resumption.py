"""Jobs that were killed, paused, drained or amended, and their twins, which were left alone."""

import random
import threading
import time
from dataclasses import replace

import pytest
from tests.marks import postgres_in_torture
from tests.worker.conftest import kill_runners, runners
from tests.worker.twins import outcome_of, train_alone

from epochd.contract.job import JobPatch, OptimizerPatch
from epochd.jobs.amend import amend
from epochd.jobs.cancel import cancel
from epochd.jobs.pause import pause, resume
from epochd.jobs.retry import retry
from epochd.store import amendments


def stop(worker):
    worker.stop()
    for thread in threading.enumerate():
        if thread.name == "worker":  # its fork server is this process's, and goes last
            thread.join(30)


@postgres_in_torture
def test_a_job_whose_runner_was_killed_at_any_moment_equals_its_twin(
    database,
    data_dir,
    queue,
    training,
    start_worker,
    wait_until,
    wait_done,
    wait_for_checkpoint,
    attempts_of,
    twin,
):
    job = queue(training)
    start_worker()
    wait_for_checkpoint(job)
    kill_runners()
    for number in (2, 3):
        wait_until(job, lambda row, number=number: row.attempt == number and row.iteration > 0)
        time.sleep(random.uniform(0, 0.5))
        kill_runners()
    row = wait_done(job)
    assert (row.status, row.error) == ("succeeded", None)
    made = attempts_of(job)
    assert [one.outcome for one in made] == ["lost", "lost", "lost", "succeeded"]
    assert made[1].restored["iteration"] == made[1].first_iteration - 1 > 0
    assert outcome_of(database, data_dir, row) == twin
    assert not (data_dir / "checkpoints" / job.id).exists()


@postgres_in_torture
def test_a_paused_job_frees_its_device_and_goes_on_exactly_where_it_stopped(
    database, data_dir, queue, training, start_worker, wait_until, wait_done, job_row, attempts_of, told, twin
):
    job = queue(training)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    pause(database, job.id)
    paused = wait_until(job, lambda row: row.status == "paused")
    assert runners() == []
    assert told(job, "checkpoint.saved")[-1]["reason"] == "pause"
    assert told(job, "checkpoint.saved")[-1]["iteration"] == paused.iteration
    assert (paused.pause_requested_at, paused.worker) == (None, None)
    resume(database, job.id)
    row = wait_done(job)
    first, second = attempts_of(job)
    assert (first.outcome, second.outcome) == ("paused", "succeeded")
    assert second.first_iteration == first.last_iteration + 1 == paused.iteration + 1
    [restored] = told(job, "checkpoint.restored")
    assert (restored["attempt"], restored["saved_by_attempt"]) == (2, 1)
    assert (restored["iteration"], restored["skipped"]) == (paused.iteration, [])
    assert outcome_of(database, data_dir, row) == twin


@postgres_in_torture
def test_a_worker_that_stops_saves_its_job_for_the_next_one(
    database, data_dir, queue, training, start_worker, wait_until, wait_done, job_row, attempts_of, told, twin
):
    job = queue(training, max_attempts=1)
    first = start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    stop(first)
    released = job_row(job)
    assert (released.status, released.worker) == ("queued", None)
    assert told(job, "checkpoint.saved")[-1]["reason"] == "shutdown"
    start_worker()
    row = wait_done(job)
    assert [one.outcome for one in attempts_of(job)] == ["released", "succeeded"]
    assert attempts_of(job)[1].first_iteration == released.iteration + 1
    assert outcome_of(database, data_dir, row) == twin


@postgres_in_torture
def test_a_runner_that_gets_sigterm_from_anybody_saves_and_goes_on(
    database, data_dir, queue, training, start_worker, wait_until, wait_done, attempts_of, twin
):
    job = queue(training, max_attempts=1)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    for runner in runners():
        runner.terminate()
    row = wait_done(job)
    assert [one.outcome for one in attempts_of(job)] == ["released", "succeeded"]
    assert outcome_of(database, data_dir, row) == twin


@postgres_in_torture
def test_a_job_that_was_amended_and_then_killed_equals_one_that_was_amended_alike(
    database,
    data_dir,
    queue,
    training,
    start_worker,
    wait_until,
    wait_done,
    wait_for_checkpoint,
    attempts_of,
    told,
):
    job = queue(training)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    policy = {"monitor": "validation_accuracy", "patience": 100_000}
    patch = {"optimizer": {"learning_rate": 0.02}, "epochs": training["epochs"] - 3, "early_stopping": policy}
    amend(database, job.id, JobPatch.model_validate(patch))
    wait_until(job, lambda _row: len(told(job, "spec.amended")) == 3)
    kill_runners()
    wait_for_checkpoint(job, attempt=2)
    amend(database, job.id, JobPatch(optimizer=OptimizerPatch(learning_rate=0.001)))
    wait_until(job, lambda _row: len(told(job, "spec.amended")) == 4)
    kill_runners()
    row = wait_done(job)
    assert [one.outcome for one in attempts_of(job)] == ["lost", "lost", "succeeded"]
    assert (row.status, row.epoch, row.spec["epochs"]) == ("succeeded", training["epochs"] - 3, row.epoch)
    with database.read() as tx:
        applied = tuple(amendments.of_job(tx, row.number))
    assert [(one.epoch, one.iteration) for one in applied] == [
        (data["epoch"], data["iteration"]) for data in told(job, "spec.amended")
    ]
    alike = train_alone(
        data_dir / "twin", training, lambda order: replace(order, amendments=applied, plan=row.plan)
    )
    assert outcome_of(database, data_dir, row) == alike


@postgres_in_torture
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_paused_job_that_is_cancelled_brings_out_its_weights_without_training_on(
    database, data_dir, queue, training, start_worker, wait_until, wait_done, told, keep
):
    job = queue(training)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    pause(database, job.id)
    paused = wait_until(job, lambda row: row.status == "paused")
    cancel(database, job.id, keep=keep, grace_seconds=30)
    row = wait_done(job)
    assert (row.status, row.attempt, row.epoch) == ("cancelled", 2, paused.epoch)
    assert row.progress["iteration"] == paused.iteration
    result = outcome_of(database, data_dir, row)
    assert result["iterations"]["iteration"] == list(range(1, paused.iteration + 1))
    [best] = [epoch["iteration"] for epoch in result["epochs"] if epoch["is_best"]]
    assert row.selected_checkpoint["iteration"] == (best if keep == "best" else paused.iteration)
    assert result["weights"]


@postgres_in_torture
@pytest.mark.parametrize("source", ["checkpoint", "scratch"])
def test_a_failed_job_that_is_retried_equals_its_twin(
    database,
    data_dir,
    queue,
    training,
    start_worker,
    wait_done,
    wait_for_checkpoint,
    attempts_of,
    twin,
    source,
):
    job = queue(training, max_attempts=1)
    start_worker()
    wait_for_checkpoint(job)
    kill_runners()
    assert wait_done(job).error["code"] == "attempts_exhausted"
    retry(database, job.id, source)
    row = wait_done(job)
    assert row.status == "succeeded"
    assert (attempts_of(job)[1].first_iteration > 1) == (source == "checkpoint")
    assert (attempts_of(job)[1].restored is not None) == (source == "checkpoint")
    result = outcome_of(database, data_dir, row)
    if source == "scratch":  # a new beginning: what came before it stays in the log
        result["announced"] = result["announced"][-len(twin["announced"]) :]
    assert result == twin


@postgres_in_torture
def test_a_cancelled_job_keeps_its_checkpoint_and_its_retry_goes_on_from_there(
    database, data_dir, queue, training, start_worker, wait_until, wait_done, job_row, attempts_of, twin
):
    job = queue(training)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    cancel(database, job.id, keep="best", grace_seconds=30)
    cancelled = wait_done(job)
    retry(database, job.id, "checkpoint")
    row = wait_done(job)
    assert attempts_of(job)[1].first_iteration == cancelled.iteration + 1
    assert outcome_of(database, data_dir, row) == twin
