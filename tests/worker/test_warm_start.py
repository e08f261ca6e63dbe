"""Jobs that begin with the weights of another, and what is refused before they are queued."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from epochd.contract.spec import JobSpec
from epochd.errors import ConflictError, InvalidRequestError
from epochd.jobs.cancel import cancel
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.jobs.delete import delete
from epochd.jobs.retry import retry
from epochd.jobs.submit import plan_job, submit
from epochd.store import artifacts, jobs
from epochd.store.database import Database
from epochd.training import weights
from epochd.worker.order import AttemptOrder
from epochd.worker.runner import run_attempt

SOURCE = {
    "dataset": "digits",
    "epochs": 2,
    "batch_size": 64,
    "model": {"name": "mlp", "hidden_sizes": [16]},
    "seed": 1,
}
STANDING_STILL = {**SOURCE, "epochs": 1, "seed": 2, "optimizer": {"name": "sgd", "learning_rate": 1e-12}}


@pytest.fixture
def db(database_url, folders):
    """It knows where artifacts are, as that of the API does."""
    database = Database(database_url, archives=folders.artifacts)
    yield database
    database.close()


@pytest.fixture
def train(db, database_url, folders):
    def run(spec, change=lambda outcome: outcome):
        row = submit(db, JobSpec.model_validate(spec)).row
        taken = claim(db, worker="worker", device="cpu", lease_seconds=60)
        order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=60)
        outcome = run_attempt(order)
        complete(db, taken.attempt_id, change(outcome), retry_delay_seconds=0)
        with db.read() as tx:
            return jobs.get(tx, row.id)

    return run


@pytest.fixture
def folder_of(db, folders):
    def find(row):
        with db.read() as tx:
            return (folders.artifacts / artifacts.get(tx, row.number, "model.json").path).parent

    return find


@pytest.fixture
def refused(db):
    def errors(spec):
        with db.read() as tx, pytest.raises(InvalidRequestError) as caught:
            plan_job(tx, JobSpec.model_validate(spec))
        return [(error.param, error.code, error.message) for error in caught.value.errors]

    return errors


def test_it_begins_with_the_weights_and_the_preprocessing(train, folder_of):
    source = train({**SOURCE, "epochs": 8})
    started = train({**STANDING_STILL, "start_from": {"job": source.id}})
    assert (started.status, started.starts_from) == ("succeeded", source.id)
    before, after = (
        load_file(folder_of(source) / weights.WEIGHTS),
        load_file(folder_of(started) / weights.WEIGHTS),
    )
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
    one, other = (json.loads((folder_of(row) / "model.json").read_bytes()) for row in (source, started))
    assert one["preprocessing"] == other["preprocessing"]  # though another seed split the data otherwise
    fresh = train(STANDING_STILL)
    assert started.metrics["train_loss"] < fresh.metrics["train_loss"] / 1.5


def test_the_last_weights_are_others_than_the_best(train, folder_of):
    # By the highest loss the first epoch is the best one.
    source = train(
        {
            **SOURCE,
            "epochs": 3,
            "early_stopping": {"monitor": "validation_loss", "mode": "max", "patience": 5},
        }
    )
    folder = folder_of(source)
    assert source.selected_checkpoint["epoch"] == 1
    last = load_file(folder / weights.LAST)
    started = train({**STANDING_STILL, "start_from": {"job": source.id, "checkpoint": "last"}})
    after = load_file(folder_of(started) / weights.WEIGHTS)
    best = load_file(folder / weights.WEIGHTS)
    assert not torch.equal(last["1.weight"], best["1.weight"])
    torch.testing.assert_close(after["1.weight"], last["1.weight"], rtol=0, atol=1e-6)


def test_dropout_may_be_another(train):
    source = train(SOURCE)
    model = {**SOURCE["model"], "dropout": 0.3}
    assert train({**STANDING_STILL, "model": model, "start_from": {"job": source.id}}).status == "succeeded"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": {"name": "mlp", "hidden_sizes": [32]}},
            "layer 2 is Linear(in_features=64, out_features=16) there and Linear(in_features=64, out_features=32) here",
        ),
        ({"model": {"name": "mlp", "hidden_sizes": [16, 16]}}, "layer 4 is"),
        ({"dataset": "diabetes"}, "for classification; diabetes is"),
        ({"dataset": "iris"}, " iris "),
    ],
)
def test_what_does_not_fit_names_both(train, refused, changes, said):
    source = train(SOURCE)
    [(param, code, message)] = refused({**SOURCE, **changes, "start_from": {"job": source.id}})
    assert (param, code) == ("start_from.job", "start_from_mismatch")
    assert said in message
    assert source.id in message


def test_jobs_that_have_no_weights(db, train, refused):
    assert refused({**SOURCE, "start_from": {"job": "job_none"}})[0][:2] == ("start_from.job", "unknown_job")
    queued = submit(db, JobSpec.model_validate(SOURCE)).row
    [(_, code, message)] = refused({**SOURCE, "start_from": {"job": queued.id}})
    assert (code, message.startswith(f"{queued.id} is queued")) == ("start_from_not_done", True)


def test_weights_whose_files_are_gone(train, refused, folder_of):
    source = train(SOURCE)
    (folder_of(source) / "model.json").unlink()
    assert refused({**SOURCE, "start_from": {"job": source.id}})[0][1] == "start_from_without_weights"


def test_weights_that_go_while_the_job_waits_fail_it(db, train, folder_of):
    source = train(SOURCE)
    (folder_of(source) / weights.WEIGHTS).write_bytes(b"torn")
    row = train({**STANDING_STILL, "start_from": {"job": source.id}, "max_attempts": 1})
    assert (row.status, row.error["code"]) == ("failed", "start_from_gone")


def test_damaged_weights_of_the_right_shape_are_not_begun_with(train, folder_of):
    source = train(SOURCE)
    path = folder_of(source) / weights.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    row = train({**STANDING_STILL, "start_from": {"job": source.id}})
    assert (row.status, row.error["code"]) == ("failed", "start_from_gone")


@pytest.fixture
def cancelled(train):
    """A cancelled job that kept its weights."""
    return train(SOURCE, lambda outcome: replace(outcome, status="cancelled", stop_reason="cancelled"))


def code_of(action, *arguments):
    with pytest.raises(ConflictError) as caught:
        action(*arguments)
    return caught.value.code


def test_the_weights_stay_while_a_job_waits_to_start_from_them(db, folders, cancelled):
    waiting = submit(db, JobSpec.model_validate({**SOURCE, "start_from": {"job": cancelled.id}})).row
    places = (folders.artifacts, folders.checkpoints)
    assert code_of(delete, db, cancelled.id, *places) == "job_in_use"
    assert code_of(retry, db, cancelled.id, "scratch") == "job_in_use"
    cancel(db, waiting.id, keep="nothing", grace_seconds=0)
    assert retry(db, cancelled.id, "scratch").status == "queued"
    assert code_of(retry, db, waiting.id, "checkpoint") == "start_from_gone"
    cancel(db, cancelled.id, keep="nothing", grace_seconds=0)
    delete(db, cancelled.id, *places)
    assert code_of(retry, db, waiting.id, "scratch") == "start_from_gone"


def test_a_retry_starts_from_the_same_weights(db, cancelled):
    waiting = submit(db, JobSpec.model_validate({**SOURCE, "start_from": {"job": cancelled.id}})).row
    cancel(db, waiting.id, keep="nothing", grace_seconds=0)
    assert retry(db, waiting.id, "scratch").status == "queued"
    assert code_of(retry, db, cancelled.id, "checkpoint") == "job_in_use"


def test_an_older_job_has_no_last_weights_beside_better_ones(train, refused, folder_of):
    stopping = {"monitor": "validation_loss", "mode": "max", "patience": 5}
    source = train({**SOURCE, "early_stopping": stopping})
    path = folder_of(source) / "model.json"
    described = json.loads(path.read_bytes())
    del described["preprocessing"]["kind"]
    path.write_text(json.dumps(described))
    spec = {**SOURCE, "start_from": {"job": source.id, "checkpoint": "last"}}
    assert refused(spec)[0][:2] == ("start_from.checkpoint", "start_from_without_weights")
