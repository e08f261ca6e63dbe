"""What a runner process does, in this process."""

import time

import pytest
from tests.little_memory import LittleMemory
from tests.worker.conftest import DIGITS

from epochd.jobs.claim import claim
from epochd.jobs.view import to_job
from epochd.store import attempts, events, jobs
from epochd.training import weights
from epochd.worker import runner
from epochd.worker.order import AttemptOrder


@pytest.fixture
def order(database, database_url, folders, queue):
    queue(DIGITS, epochs=1)
    taken = claim(database, worker="worker", device="cpu", lease_seconds=3)
    return AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=3)


@pytest.mark.parametrize("slow", ["runner.prepare_data", "weights.save"])
def test_the_lease_is_renewed_however_long_reading_data_or_writing_weights_takes(
    database, order, monkeypatch, slow
):
    module, name = (weights, "save") if "save" in slow else (runner, "prepare_data")
    real = getattr(module, name)

    def expires():
        with database.read() as tx:
            return attempts.get(tx, order.attempt_id).lease_expires_at

    def wait_for_a_renewal(*arguments, **named):
        before, deadline = expires(), time.monotonic() + 30
        while expires() == before:
            assert time.monotonic() < deadline, "nobody renewed the lease"
            time.sleep(0.05)
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, wait_for_a_renewal)
    outcome = runner.run_attempt(order)
    assert (outcome.status, outcome.error) == ("succeeded", None)


class TestLittleMemory:
    """What is recorded of a training whose mini-batches do not fit into memory."""

    @pytest.fixture
    def trained(self, database, database_url, folders, queue):
        def train(**changes):
            queue({**DIGITS, **changes}, epochs=2)
            taken = claim(database, worker="worker", device="cpu", lease_seconds=30)
            order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=30)
            with LittleMemory(16):
                outcome = runner.run_attempt(order)
            assert (outcome.status, outcome.error) == ("succeeded", None)
            with database.read() as tx:
                row = jobs.get(tx, order.job_id)
                found = events.after(tx, row.number, 0, 1000)
            return to_job(row), [one for one in found if one.type == "memory.reduced"]

        return train

    def test_is_told_by_an_event_and_the_job(self, trained):
        job, (told,) = trained()
        assert told.data == {
            "epoch": 1,
            "iteration": 1,
            "batch_size": 64,
            "micro_batch_size": 16,
            "micro_batches": 4,
            "batch_statistics": False,
        }
        assert job.progress.micro_batch_size == 16
        assert job.progress.iteration == job.plan.total_iterations
        assert job.spec.batch_size == job.plan.batch_size == 64
        assert job.advice == [one for one in job.advice if one.code != "batch_norm_sees_micro_batches"]

    def test_of_a_model_with_batch_statistics_is_said_in_the_advice(self, trained):
        job, (told,) = trained(model={"name": "mlp", "hidden_sizes": [16], "batch_norm": True})
        assert told.data["batch_statistics"]
        (said,) = [one for one in job.advice if one.code == "batch_norm_sees_micro_batches"]
        assert "at most 16" in said.message
