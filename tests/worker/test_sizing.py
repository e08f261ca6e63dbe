"""Jobs whose batch size is measured before they train."""

import time

import pytest
from tests.worker.test_measuring import children

from epochd.contract.job import JobPatch
from epochd.jobs import cancel, pause, view
from epochd.jobs.amend import amend
from epochd.jobs.claim import claim
from epochd.jobs.lifecycle import is_done
from epochd.store import artifacts, events, jobs
from epochd.worker import sizing

AUTO = {
    "dataset": {"name": "synthetic", "samples": 200, "features": 6},
    "model": {"name": "mlp", "hidden_sizes": [8]},
    "epochs": 3,
    "batch_size": "auto",
}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(sizing, "SECONDS", 1.0)


@pytest.fixture
def endless(monkeypatch):
    monkeypatch.setattr(sizing, "SECONDS", 300.0)
    return AUTO | {"dataset": "digits"}


@pytest.fixture
def read(database):
    def get(job_id):
        with database.read() as tx:
            return jobs.get(tx, job_id)

    return get


@pytest.fixture
def wait(read):
    def until(job_id, reached=lambda row: is_done(row.status)):
        deadline = time.monotonic() + 120
        while not reached(read(job_id)):
            assert time.monotonic() < deadline, read(job_id)
            time.sleep(0.02)
        return read(job_id)

    return until


@pytest.fixture
def told(database):
    def find(row, kind):
        with database.read() as tx:
            return [one.data for one in events.after(tx, row.number, 0, 100) if one.type == kind]

    return find


def measuring():
    deadline = time.monotonic() + 60
    while not children():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_queued_is_planned_with_a_provisional_size(queue):
    row = queue(AUTO)
    assert (row.spec["batch_size"], row.plan["batch_size"], row.plan["iterations_per_epoch"]) == (
        "auto",
        32,
        5,
    )
    assert [one["code"] for one in row.advice] == ["batch_size_auto"]
    assert queue(AUTO, dataset={"name": "synthetic", "samples": 12}).plan["batch_size"] == 8


def test_the_size_that_was_measured_is_trained_with_and_told(queue, wait, told, start_worker, database):
    start_worker()
    row = wait(queue(AUTO, epochs=60).id)
    assert row.status == "succeeded", row.error
    size = row.spec["batch_size"]
    assert row.plan["batch_size"] == size
    assert row.shown_iteration == row.plan["total_iterations"] == 60 * -(-160 // size)
    (chosen,) = told(row, "batch_size.chosen")
    assert chosen["batch_size"] == size
    assert size == min(
        chosen["recommended"], 32
    )  # 64 would leave 60 epochs with fewer than 200 whole mini-batches
    assert size in [one["batch_size"] for one in chosen["sizes"] if one["fits"]]
    first = row.advice[0]
    assert first["code"] == "batch_size_measured"
    assert chosen["reasons"]["recommended"] in first["message"]
    assert view.to_job(row).spec.batch_size == size
    with database.read() as tx:
        assert {one.name for one in artifacts.of_job(tx, row.number)} >= {"model.safetensors", "receipt.json"}


def test_a_size_that_the_spec_does_not_allow_is_not_taken(queue, wait, start_worker):
    """At 3 epochs of 160 samples a warm-up of 100 iterations ends only with 4 samples a mini-batch, or fewer."""
    start_worker()
    row = wait(queue(AUTO, schedule={"name": "cosine", "warmup_iterations": 100}).id)
    assert row.status == "succeeded", row.error
    assert row.spec["batch_size"] <= 4


def test_few_epochs_are_not_left_with_few_weight_updates(queue, wait, told, start_worker):
    start_worker()
    row = wait(queue(AUTO, epochs=5).id)
    (chosen,) = told(row, "batch_size.chosen")
    assert row.spec["batch_size"] == min(chosen["recommended"], 4)
    assert row.plan["total_iterations"] >= 200


def test_batch_statistics_never_see_a_single_sample(queue, wait, start_worker):
    start_worker()
    model = {"name": "mlp", "hidden_sizes": [8], "batch_norm": True}
    for samples in (33, 65, 129):  # powers of two, and one left over
        data = {"name": "synthetic", "samples": samples, "features": 4}
        row = wait(queue(AUTO, dataset=data, model=model, validation=None).id)
        assert row.status == "succeeded", row.error
        assert samples % row.spec["batch_size"] != 1


def test_what_is_cancelled_while_it_is_measured_ends_at_once(queue, wait, database, endless, start_worker):
    start_worker()
    job = queue(endless)
    measuring()
    cancel.cancel(database, job.id, keep="best", grace_seconds=60)
    assert wait(job.id).status == "cancelled"
    assert children() == []


def test_what_is_paused_while_it_is_measured_is_measured_again(
    queue, wait, told, database, endless, start_worker
):
    start_worker()
    job = queue(endless)
    measuring()
    pause.pause(database, job.id)
    row = wait(job.id, lambda row: row.status == "paused")
    assert row.spec["batch_size"] == "auto"
    sizing.SECONDS = 1.0
    pause.resume(database, job.id)
    row = wait(job.id)
    assert (row.status, len(told(row, "batch_size.chosen"))) == ("succeeded", 1)


def test_what_is_amended_while_it_is_measured_is_trained_as_amended(
    queue, wait, database, endless, start_worker
):
    start_worker()
    job = queue(endless, epochs=2)
    measuring()
    sizing.SECONDS = 1.0
    amend(database, job.id, JobPatch(epochs=4))
    children()[0].kill()  # what was measured until then stands
    row = wait(job.id)
    if row.status == "failed":  # nothing was
        assert row.error["category"] == "out_of_memory"
    else:
        assert (row.status, row.epoch) == ("succeeded", 4)
        assert row.initial_spec["batch_size"] == row.spec["batch_size"]
        assert row.initial_spec["epochs"] == 2


def test_a_worker_that_stops_meanwhile_gives_the_job_back(queue, wait, endless, start_worker):
    worker = start_worker()
    job = queue(endless)
    measuring()
    worker.stop()
    row = wait(job.id, lambda row: row.status == "queued")
    assert row.spec["batch_size"] == "auto"
    sizing.SECONDS = 1.0
    start_worker()
    assert wait(job.id).status == "succeeded"


def test_what_was_lost_to_somebody_else_is_left_alone(queue, read, database, endless, start_worker):
    worker = start_worker()
    job = queue(endless)
    measuring()
    cancel.cancel(database, job.id, keep="nothing", grace_seconds=0)
    worker.stop()
    deadline = time.monotonic() + 60
    while read(job.id).status == "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (
        claim(database, worker="other", device="cpu", lease_seconds=10) is None or read(job.id).attempt == 2
    )


def test_a_job_that_cannot_be_measured_fails_as_it_would_in_training(queue, wait, start_worker):
    start_worker()
    row = wait(queue(AUTO, device="cuda", max_attempts=1).id)
    assert (row.status, row.error["code"]) == ("failed", "device_not_available")
