"""Replaying early stopping decides what real trainings decided."""

import pytest

from epochd.contract.what_if import WhatIfRequest
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.jobs.what_if import what_if
from epochd.worker.order import AttemptOrder
from epochd.worker.runner import run_attempt

TRAINING = {
    "dataset": {"name": "synthetic", "samples": 120, "features": 8, "noise": 0.4},
    "model": {"name": "mlp", "hidden_sizes": [16]},
    "optimizer": {"name": "adamw", "learning_rate": 0.02},
    "batch_size": 16,
    "epochs": 60,
    "seed": 3,
}


@pytest.fixture
def train(database, database_url, folders, queue):
    """Train a job to its end, and return its id."""

    def run(**changes):
        row = queue(TRAINING, **changes)
        taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
        order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=60)
        complete(database, taken.attempt_id, run_attempt(order), retry_delay_seconds=0)
        return row.id

    return run


@pytest.mark.parametrize(
    ("policy", "every_epochs"),
    [
        ({"patience": 4}, 1),
        ({"patience": 12, "min_delta": "auto"}, 1),
        ({"patience": 6, "min_delta": 0.02, "start_epoch": 5}, 3),
        ({"patience": 7, "monitor": "train_loss", "restore_best": False}, 3),
        ({"patience": 50, "target": 0.67}, 1),
        ({"patience": 60}, 7),
    ],
    ids=str,
)
def test_a_jobs_own_policy_stops_where_training_did(train, database, policy, every_epochs):
    validation = {"fraction": 0.4, "every_epochs": every_epochs}
    found = what_if(database, train(early_stopping=policy, validation=validation), WhatIfRequest())
    actual, [replayed] = found.actual, found.data
    stopped = actual.stop_reason != "completed"
    assert replayed.stopped_epoch == (actual.epochs if stopped else None)
    assert replayed.stop_reason == (actual.stop_reason if stopped else None)
    assert (replayed.kept_epoch, replayed.kept_value) == (actual.kept_epoch, actual.kept_value)
    assert (replayed.epochs_saved, replayed.iterations_saved, replayed.seconds_saved) == (0, 0, 0)
    assert (replayed.policy, replayed.would_go_on) == (actual.policy, False)


def test_a_policy_over_a_whole_job_stops_where_a_job_with_that_policy_does(train, database):
    whole = train(early_stopping=None, validation={"fraction": 0.4})
    grid = what_if(database, whole, WhatIfRequest(patience=[3, 8], min_delta=[0.0, "auto"]))
    for replayed in grid.data:
        policy = replayed.policy.model_dump()
        real = what_if(database, train(early_stopping=policy, validation={"fraction": 0.4}), WhatIfRequest())
        assert replayed.stopped, "or the test shows nothing"
        assert (replayed.epochs, replayed.iterations) == (real.actual.epochs, real.actual.iterations)
        assert (replayed.kept_epoch, replayed.kept_value) == (real.actual.kept_epoch, real.actual.kept_value)
        assert replayed.epochs_saved == TRAINING["epochs"] - real.actual.epochs
        assert replayed.value_lost == replayed.kept_value - grid.actual.best_value >= 0
