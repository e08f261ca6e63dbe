from concurrent.futures import ThreadPoolExecutor

import pytest

from epochd.contract.spec import JobSpec
from epochd.errors import IdempotencyKeyReusedError, InvalidRequestError
from epochd.jobs.submit import plan_job, submit
from epochd.store import events, jobs


def spec(**changes) -> JobSpec:
    return JobSpec.model_validate({"dataset": "digits", "epochs": 3, "batch_size": 64, **changes})


def test_the_definitions_of_the_field(database):
    synthetic = {"name": "synthetic", "samples": 1000}
    with database.read() as tx:
        planned = plan_job(tx, spec(dataset=synthetic, epochs=1, batch_size=100, validation=None))
    assert planned.plan.model_dump() == {
        "train_samples": 1000,
        "validation_samples": 0,
        "batch_size": 100,
        "mini_batches_per_epoch": 10,
        "last_batch_size": 100,
        "iterations_per_epoch": 10,
        "total_iterations": 10,
    }


def test_a_job_is_stored_with_its_plan_and_first_event(database):
    submitted = submit(database, spec(name="first", tags={"team": "vision"}, priority=3))
    assert submitted.created
    with database.read() as tx:
        row = jobs.get(tx, submitted.row.id)
        stored = events.after(tx, row.number, 0, 10)
    assert (row.status, row.name, row.priority, row.tags) == ("queued", "first", 3, {"team": "vision"})
    assert row.plan["iterations_per_epoch"] == 23
    assert row.spec["loss"] == "cross_entropy"
    assert [(event.seq, event.type) for event in stored] == [(1, "job.queued")]


def test_an_invalid_spec_stores_nothing(database):
    with pytest.raises(InvalidRequestError):
        submit(database, spec(dataset="digit"))
    with database.read() as tx:
        assert jobs.page(tx, limit=10, after=None, statuses=(), name=None, tags={})[0] == []


def test_the_same_key_and_body_give_the_same_job(database):
    first = submit(database, spec(), "key-1")
    again = submit(database, spec(), "key-1")
    assert (first.created, again.created) == (True, False)
    assert first.row.id == again.row.id


def test_the_same_key_with_another_body_is_refused(database):
    submit(database, spec(), "key-1")
    with pytest.raises(IdempotencyKeyReusedError, match="another body"):
        submit(database, spec(epochs=4), "key-1")


def test_two_at_once_with_one_key_make_one_job(database):
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda _: submit(database, spec(), "key-1"), range(16)))
    assert len({one.row.id for one in submitted}) == 1
    assert sum(one.created for one in submitted) == 1
