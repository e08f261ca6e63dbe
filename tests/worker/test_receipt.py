"""The receipt that a training leaves beside its weights."""

import json

import numpy as np
import pytest
from tests.marks import postgres_in_torture
from tests.packages import WIDE, install
from tests.worker.conftest import DIGITS, ENDLESS, kill_runners

from epochd.contract.job import JobPatch
from epochd.contract.spec import JobSpec
from epochd.jobs.amend import amend
from epochd.jobs.diff import diff
from epochd.store import artifacts
from epochd.worker.prepare import prepare_data
from epochd.worker.receipt import split_digest


@pytest.fixture
def receipt_of(database, data_dir):
    def read(job):
        with database.read() as tx:
            row = artifacts.get(tx, job.number, "receipt.json")
        return json.loads((data_dir / "artifacts" / row.path).read_bytes())

    return read


@postgres_in_torture
def test_it_says_what_the_result_depends_on(database, data_dir, queue, start_worker, wait_done, receipt_of):
    job = queue(DIGITS, seed=3)
    start_worker()
    row = wait_done(job)
    receipt = receipt_of(job)
    inputs, environment, result = receipt["inputs"], receipt["environment"], receipt["result"]
    data = prepare_data(JobSpec.model_validate(row.spec))
    assert receipt["job"] == {"id": job.id, "attempt": 1}
    assert (inputs["spec"], inputs["seed"], inputs["amendments"]) == (row.spec, 3, [])
    assert inputs["dataset"] == {"name": "digits", "digest": data.digest, "samples": 1797}
    sizes = len(data.training.train), len(data.training.validation)
    expected = split_digest((data.train.rows, sizes[0]), (data.validation.rows, sizes[1]))
    assert inputs["split"] == {"train_samples": 1438, "validation_samples": 359, "digest": expected}
    assert (environment["device"]["name"], environment["threads"]) == ("cpu", 1)
    assert environment["determinism"]["bit_exact"]
    assert {"torch", "numpy"} <= set(environment["packages"])
    assert (receipt["restored"], inputs["starts_from"], environment["model_package"]) == (None, None, None)
    assert result["metrics"] == row.metrics
    assert result["selected"] == row.selected_checkpoint
    assert (result["status"], result["stop_reason"], result["epochs"]) == ("succeeded", "completed", 3)
    with database.read() as tx:
        stored = {one.name: f"sha256:{one.sha256}" for one in artifacts.of_job(tx, job.number)}
    del stored["receipt.json"]
    assert result["files"] == stored


def test_the_same_job_twice_differs_nowhere_and_another_seed_does(
    database, data_dir, queue, start_worker, wait_done
):
    jobs = [queue(DIGITS, seed=seed) for seed in (1, 1, 2)]
    start_worker()
    for job in jobs:
        assert wait_done(job).status == "succeeded"
    one, same, other = (job.id for job in jobs)
    folder = data_dir / "artifacts"
    alike = diff(database, folder, one, same)
    assert (alike.spec, alike.data, alike.environment, alike.results) == ([], [], [], [])
    assert (alike.first_different_epoch, alike.notes) == (None, [])
    found = diff(database, folder, one, other)
    assert [found.spec[0].path, found.data[0].path] == ["seed", "split.digest"]
    assert found.environment == []
    assert found.first_different_epoch == 1
    assert "sha256.model.safetensors" in [one.path for one in found.results]


@postgres_in_torture
def test_a_resumed_and_amended_job_says_so(
    database, queue, start_worker, wait_until, wait_done, wait_for_checkpoint, receipt_of
):
    job = queue(ENDLESS)
    start_worker()
    wait_for_checkpoint(job)
    kill_runners()
    row = wait_until(job, lambda row: row.attempt == 2 and row.epoch > 0)
    amend(database, job.id, JobPatch.model_validate({"epochs": row.epoch + 20}))
    wait_done(job)
    receipt = receipt_of(job)
    assert receipt["job"]["attempt"] == 2
    assert receipt["restored"]["attempt"] == 1
    assert receipt["restored"]["iteration"] > 0
    [amendment] = receipt["inputs"]["amendments"]
    assert (amendment["field"], amendment["value"]) == ("epochs", row.epoch + 20)
    assert 0 < amendment["epoch"] < row.epoch + 20
    assert receipt["inputs"]["spec"]["epochs"] == ENDLESS["epochs"]


@postgres_in_torture
def test_an_operators_package_is_named(
    tmp_path, monkeypatch, database, queue, start_worker, wait_done, receipt_of
):
    from epochd.store import models

    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, WIDE, "acme", version="3.1.4")
    from epochd.training.operator_package import load

    with database.write() as tx:
        models.publish(tx, [load("acme").describe()])
    job = queue({"dataset": "iris", "epochs": 1, "batch_size": 16, "model": {"name": "acme"}})
    start_worker()
    assert wait_done(job).status == "succeeded"
    assert receipt_of(job)["environment"]["model_package"] == {"name": "acme-models", "version": "3.1.4"}


def test_the_split_digest_tells_the_sides_and_their_order_apart():
    rows = np.arange(10)
    whole = split_digest((slice(None), 10), (None, 0))
    assert whole == split_digest((rows, 10), (rows[:0], 0))
    others = [
        split_digest((rows[:5], 5), (rows[5:], 5)),
        split_digest((rows[5:], 5), (rows[:5], 5)),
        split_digest((rows[::-1], 10), (None, 0)),
        split_digest((slice(1, None), 10), (None, 0)),
    ]
    assert len({whole, *others}) == 5
    big = np.arange(2**20 + 3)
    assert split_digest((big, len(big))) == split_digest((slice(None), len(big)))
