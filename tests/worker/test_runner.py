"""What a runner process does, in this process."""

import time

import pytest
from tests.worker.conftest import DIGITS

from epochd.jobs.claim import claim
from epochd.store import attempts
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
