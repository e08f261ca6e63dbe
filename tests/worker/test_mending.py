"""What is diagnosed of real jobs is gone once their suggestions are followed."""

import pytest

from epochd.jobs import view
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.store import jobs
from epochd.worker.order import AttemptOrder
from epochd.worker.runner import run_attempt

STEPS = 4
"""So often the first suggestion is followed, at most."""


def adamw(rate):
    return {"name": "adamw", "learning_rate": rate}


def mlp(*sizes, **others):
    return {"name": "mlp", "hidden_sizes": list(sizes), **others}


RISING = {"name": "one_cycle", "rise_fraction": 0.98}
DECAYED = {"name": "step", "step_epochs": 4, "gamma": 0.001}
CLUSTERS = {"name": "synthetic", "samples": 160, "features": 10, "classes": 4, "noise": 0.4}
CASES = {
    "too few epochs": ("underfitting", {"model": mlp(32), "epochs": 6, "optimizer": adamw(0.001)}),
    "too low a rate": ("underfitting", {"model": mlp(64), "epochs": 30, "optimizer": adamw(2e-6)}),
    "too little capacity": (
        "underfitting",
        {"model": mlp(2, 2, 2, dropout=0.9), "epochs": 40, "optimizer": adamw(0.001)},
    ),
    "too many epochs": (
        "overfitting",
        {"dataset": CLUSTERS, "model": mlp(256), "epochs": 120, "optimizer": adamw(0.003)},
    ),
    "too high a rate": (
        "diverging",
        {"model": mlp(64, 64), "epochs": 30, "optimizer": adamw(3.0), "schedule": RISING},
    ),
    "a rate that decays too early": (
        "plateau",
        {"dataset": "breast_cancer", "model": mlp(32), "epochs": 40, "optimizer": adamw(6e-4), "schedule": DECAYED},
    ),
    "too small mini-batches": (
        "noisy",
        {"dataset": CLUSTERS, "model": {"name": "linear"}, "epochs": 40, "batch_size": 2, "optimizer": adamw(0.1)},
    ),
}  # fmt: skip


@pytest.fixture
def train(database, database_url, folders, queue):
    """Train a job to its end, and return its row."""

    def run(spec):
        row = queue({"dataset": "digits", "batch_size": 32, "seed": 1, **spec})
        taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
        order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=60)
        complete(database, taken.attempt_id, run_attempt(order), retry_delay_seconds=0)
        with database.read() as tx:
            return jobs.get(tx, row.id)

    return run


@pytest.mark.parametrize(("verdict", "spec"), CASES.values(), ids=CASES.keys())
def test_what_was_diagnosed_is_mended_by_the_patches(train, verdict, spec):
    row = first = train(spec)
    found = view.to_diagnosis(row)
    assert (found.verdict, found.final) == (verdict, True), found.evidence
    for _ in range(STEPS):
        row = train({**row.spec, **found.suggestions[0].patch})
        assert row.status == "succeeded", row.error
        found = view.to_diagnosis(row)
        if found.verdict != verdict:
            break
    assert found.verdict != verdict, found.evidence
    if found.verdict != "good_fit":  # says at least what else to do
        assert found.verdict == "undetermined" or found.suggestions
    assert best(row) <= best(first)


def best(row):
    """The least validation loss, that of the weights that come out."""
    assert row.selected_checkpoint["metric"] == "validation_loss"
    return row.selected_checkpoint["value"]
