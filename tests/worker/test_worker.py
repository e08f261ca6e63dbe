import itertools
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from sqlalchemy import text
from tests.worker.conftest import DIGITS, ENDLESS, runners

from epochd.contract.spec import JobSpec
from epochd.jobs.cancel import cancel
from epochd.store import artifacts, attempts, events, jobs
from epochd.store import metrics as recorded
from epochd.training import weights
from epochd.worker.prepare import prepare_data


def iteration_rows(database, job):
    query = (
        "SELECT attempt, iteration, epoch, train_loss FROM iteration_metrics WHERE job_id = :id ORDER BY 1, 2"
    )
    with database.read() as tx:
        return tx.execute(text(query), {"id": job.id}).all()


def event_types(database, job):
    with database.read() as tx:
        return [event.type for event in events.after(tx, job.number, 0, 10_000)]


def validation_accuracy(folder, spec):
    model, description = weights.load(folder)
    held_back = prepare_data(JobSpec.model_validate(spec)).training.validation
    with torch.no_grad():
        predicted = model.eval()(torch.from_numpy(held_back.x)).argmax(1).numpy()
    assert description["classes"] == [str(digit) for digit in range(10)]
    return float((predicted == held_back.y).mean())


def test_a_job_records_every_iteration_and_epoch_once_and_keeps_its_best_weights(
    database, data_dir, queue, start_worker, wait_done
):
    job = queue(DIGITS)
    start_worker()
    row = wait_done(job)
    assert (row.status, row.stop_reason, row.error) == ("succeeded", "completed", None)
    rows = iteration_rows(database, job)
    assert [one.iteration for one in rows] == list(range(1, 3 * 23 + 1))
    assert [one.epoch for one in rows] == [1 + index // 23 for index in range(3 * 23)]
    assert all(one.train_loss > 0 for one in rows)
    with database.read() as tx:
        epochs, _ = recorded.epochs(tx, row)
        files = {file.name: file for file in artifacts.of_job(tx, row.number)}
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3]
    best = min(epochs, key=lambda epoch: epoch.metrics["validation_loss"])
    assert [epoch.is_best for epoch in epochs] == [epoch is best for epoch in epochs]
    chosen = row.selected_checkpoint
    assert (chosen["epoch"], chosen["value"]) == (best.epoch, best.metrics["validation_loss"])
    assert set(files) == {"model.safetensors", "model.json", "receipt.json"}
    folder = (data_dir / "artifacts" / files["model.safetensors"].path).parent
    assert validation_accuracy(folder, row.spec) == pytest.approx(best.metrics["validation_accuracy"])
    assert all(torch.isfinite(tensor).all() for tensor in load_file(folder / "model.safetensors").values())
    assert event_types(database, job)[:2] == ["job.queued", "job.started"]
    assert event_types(database, job)[-1] == "job.succeeded"
    assert event_types(database, job).count("epoch.completed") == 3
    assert (row.epoch, row.iteration, row.progress["eta_seconds"]) == (3, 69, 0)


def test_what_does_not_fit_the_machine_fails_with_its_reason(queue, start_worker, wait_done):
    job = queue(DIGITS, device="cuda:7", max_attempts=1)
    start_worker()
    row = wait_done(job)
    assert (row.status, row.error["code"]) == ("failed", "device_not_available")
    assert "cuda:7" in row.error["message"]


def test_a_model_that_cannot_fit_into_memory_fails_at_once(queue, start_worker, wait_done):
    job = queue(DIGITS, model={"name": "mlp", "hidden_sizes": [65_536] * 8})
    start_worker()
    row = wait_done(job)
    assert (row.status, row.attempt, row.error["category"]) == ("failed", 1, "out_of_memory")
    assert "30070145034 parameters" in row.error["message"]


def test_a_loss_that_is_not_finite_fails_the_job_and_names_the_iteration(
    database, queue, start_worker, wait_done
):
    diverging = {"name": "sgd", "learning_rate": 1e6}
    job = queue(
        {"dataset": "diabetes", "epochs": 50, "batch_size": 16, "optimizer": diverging, "loss": "mse"}
    )
    start_worker()
    row = wait_done(job)
    assert (row.status, row.stop_reason, row.error["category"]) == ("failed", "failed", "numeric")
    assert not row.error["retryable"]
    rows = iteration_rows(database, job)
    assert rows[-1].train_loss is None
    assert all(one.train_loss is not None for one in rows[:-1])
    assert f"iteration {rows[-1].iteration}" in row.error["message"]
    assert row.attempt == 1


def test_a_runner_killed_at_its_last_attempt_fails_the_job(queue, start_worker, wait_until, wait_done):
    job = queue(ENDLESS, max_attempts=1)
    start_worker()
    wait_until(job, lambda row: row.iteration > 0)
    for runner in runners():
        runner.send_signal(signal.SIGKILL)
    row = wait_done(job)
    assert (row.status, row.error["code"]) == ("failed", "attempts_exhausted")
    assert "killed by signal 9" in row.error["message"]


def test_a_suspended_runner_loses_its_job_to_another_attempt(
    database, queue, start_worker, wait_until, wait_done
):
    job = queue(ENDLESS, max_attempts=3)
    start_worker(lease_seconds=1)
    wait_until(job, lambda row: row.iteration > 0)
    for runner in runners():
        runner.send_signal(signal.SIGSTOP)
    row = wait_until(job, lambda row: row.attempt == 2 and row.iteration > 0)
    assert row.status == "running"
    assert len(runners()) == 1, "the suspended process is gone"
    cancel(database, job.id, keep="nothing", grace_seconds=0)
    assert wait_done(job).status == "cancelled"


@pytest.mark.parametrize(("keep", "kept"), [("best", True), ("last", True), ("nothing", False)])
def test_cancelling_ends_the_process_and_keeps_what_was_asked_for(
    database, queue, start_worker, wait_until, wait_done, keep, kept
):
    job = queue(ENDLESS)
    start_worker()
    wait_until(job, lambda row: row.epoch >= 2)
    cancel(database, job.id, keep=keep, grace_seconds=30)
    row = wait_done(job)
    assert (row.status, row.stop_reason) == ("cancelled", "cancelled")
    assert runners() == []
    with database.read() as tx:
        files = artifacts.of_job(tx, row.number)
        epochs, _ = recorded.epochs(tx, row, limit=100_000)
    assert bool(files) == kept
    assert (row.selected_checkpoint is not None) == kept
    if keep == "best":
        best = min(epochs, key=lambda epoch: epoch.metrics["validation_loss"])
        assert row.selected_checkpoint["value"] == best.metrics["validation_loss"]
    if keep == "last":
        assert row.selected_checkpoint["iteration"] == row.iteration


def test_a_process_that_takes_longer_than_its_grace_is_killed(
    database, queue, start_worker, wait_until, wait_done
):
    job = queue(ENDLESS)
    start_worker()
    wait_until(job, lambda row: row.iteration > 0)
    for runner in runners():
        runner.send_signal(signal.SIGSTOP)
    cancel(database, job.id, keep="best", grace_seconds=0.5)
    row = wait_done(job)
    assert (row.status, row.selected_checkpoint) == ("cancelled", None)
    assert runners() == []


def test_one_slot_trains_one_job_at_a_time_by_priority_then_age(database, queue, start_worker, wait_done):
    jobs = [queue(DIGITS), queue(DIGITS), queue(DIGITS, priority=1)]
    start_worker()
    rows = [wait_done(job) for job in jobs]
    order = sorted(range(3), key=lambda index: rows[index].started_at)
    assert order == [2, 0, 1]
    for earlier, later in itertools.pairwise(order):
        assert rows[earlier].finished_at <= rows[later].started_at


def test_two_slots_train_two_jobs_at_once(database, queue, start_worker, wait_until, wait_done):
    jobs = [queue(ENDLESS), queue(ENDLESS)]
    start_worker(slots=2)
    for job in jobs:
        wait_until(job, lambda row: row.iteration > 0)
    assert len(runners()) == 2
    for job in jobs:
        cancel(database, job.id, keep="nothing", grace_seconds=0)
        wait_done(job)


def test_a_database_that_reads_but_takes_no_writes_costs_no_attempt(
    database, queue, start_worker, wait_until, wait_done
):
    job = queue(ENDLESS)
    start_worker(lease_seconds=3)
    wait_until(job, lambda row: row.iteration > 0)
    with database.write() as tx:
        # SQLite: nobody else can write. Postgres: nobody can renew the attempt, nor end it.
        row = jobs.get(tx, job.id, lock=True)
        [attempt] = attempts.of_job(tx, job.number)
        attempts.renew(tx, attempt.id, 3)
        time.sleep(7)
    reached = wait_until(job, lambda now: now.iteration > row.iteration)
    assert (reached.attempt, reached.status) == (1, "running")
    cancel(database, job.id, keep="best", grace_seconds=30)
    assert wait_done(job).selected_checkpoint is not None
    with database.read() as tx:
        assert [one.outcome for one in attempts.of_job(tx, job.number)] == ["cancelled"]
