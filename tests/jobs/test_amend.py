import pytest

from epochd.contract.job import JobPatch
from epochd.errors import ConflictError, InvalidRequestError, NotFoundError
from epochd.jobs.amend import amend
from epochd.jobs.cancel import cancel
from epochd.jobs.complete import Outcome, complete, lose
from epochd.jobs.retry import retry
from epochd.store import amendments, attempts, jobs

POLICY = {"monitor": "validation_loss", "patience": 4}


@pytest.fixture
def change(database):
    def send(job, **body):
        return amend(database, job.id, JobPatch.model_validate(body))

    return send


@pytest.fixture
def asked(database):
    def read(job):
        with database.read() as tx:
            return [(one.number, one.field, one.value) for one in amendments.of_job(tx, job.number)]

    return read


def test_before_training_everything_takes_effect_at_once(change, queue, take, told, asked):
    job = queue()
    row = change(
        job,
        name="n",
        tags={"a": "b"},
        priority=7,
        epochs=9,
        optimizer={"learning_rate": 0.5},
        early_stopping=POLICY,
    )
    assert (row.name, row.tags, row.priority, row.initial_spec, row.amendments) == (
        "n",
        {"a": "b"},
        7,
        None,
        0,
    )
    assert (row.spec["epochs"], row.spec["optimizer"]["learning_rate"]) == (9, 0.5)
    assert row.spec["early_stopping"]["mode"] == "min"  # resolved
    assert row.plan["total_iterations"] == 9 * row.plan["iterations_per_epoch"]
    newest = told(job)[-1]
    assert newest.type == "spec.amended"
    assert (newest.data["epoch"], newest.data["iteration"]) == (0, 0)
    assert newest.data["changes"] == {
        "name": "n",
        "tags": {"a": "b"},
        "priority": 7,
        "epochs": 9,
        "optimizer.learning_rate": 0.5,
        "early_stopping": row.spec["early_stopping"],
    }
    assert asked(job) == []
    assert take().job.spec == row.spec


def test_what_concerns_the_training_waits_for_the_engine_once_it_has_begun(
    database, change, queue, take, train, types, asked
):
    job = queue()
    taken = take()
    train(taken, epochs=1)
    row = change(job, epochs=9, early_stopping=POLICY)
    assert (row.spec["epochs"], row.spec["early_stopping"]["patience"]) == (9, 4)
    assert (row.initial_spec["epochs"], row.initial_spec["early_stopping"]) == (3, None)
    row = change(job, epochs=12, optimizer={"learning_rate": 0.5})
    assert (row.initial_spec["epochs"], row.amendments) == (3, 4)
    assert asked(job) == [
        (1, "epochs", 9),
        (2, "early_stopping", row.spec["early_stopping"]),
        (3, "learning_rate", 0.5),
        (4, "epochs", 12),
    ]
    assert types(job) == ["job.queued", "job.started"]  # the recorder tells of it when it takes effect
    with database.read() as tx:
        assert attempts.control(tx, taken.attempt_id).amendments == 4


def test_name_tags_and_priority_take_effect_at_once_even_then(change, queue, take, train, told, asked):
    job = queue(name="old")
    train(take())
    row = change(job, name=None, priority=-3, optimizer={"learning_rate": 0.5})
    assert (row.name, row.spec["name"], row.priority, row.amendments) == (None, None, -3, 1)
    assert told(job)[-1].data == {"changes": {"name": None, "priority": -3}, "epoch": 2, "iteration": 16}
    assert asked(job) == [(1, "learning_rate", 0.5)]


def test_a_new_priority_counts_at_the_next_claim(change, queue, take):
    first, second = queue(), queue()
    change(second, priority=1)
    assert [take().job.id, take().job.id] == [second.id, first.id]


def test_what_is_so_already_changes_nothing(change, queue, take, types):
    job = queue(early_stopping=POLICY, name="n")
    before = change(job, priority=0)
    same = {
        "epochs": 3,
        "name": "n",
        "early_stopping": POLICY,
        "tags": {},
        "optimizer": {"learning_rate": 0.001},
    }
    assert change(job, **same) == before
    running = take().job
    assert change(job, **same).version == running.version + 1  # the event that it was started
    assert types(job) == ["job.queued", "job.started"]


def test_advice_follows_the_spec(change, queue):
    job = queue(epochs=1)
    assert change(job, epochs=500).advice != job.advice


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"early_stopping": {"start_epoch": 9}}, "start_epoch_after_last_epoch"),
        ({"early_stopping": {"monitor": "validation_speed"}}, "unknown_metric"),
        ({"epochs": 1, "name": "never"}, "warmup_exceeds_training"),
    ],
)
def test_a_contradiction_changes_nothing(database, change, queue, body, code):
    job = queue(schedule={"name": "constant", "warmup_iterations": 20})
    with pytest.raises(InvalidRequestError) as caught:
        change(job, **body)
    assert caught.value.errors[0].code == code
    with database.read() as tx:
        assert jobs.get(tx, job.id) == job


def test_no_fewer_epochs_than_are_completed(change, queue, take, train, asked):
    job = queue(epochs=5)
    train(take(), epochs=2)
    with pytest.raises(InvalidRequestError, match="2 epochs are completed") as caught:
        change(job, epochs=2)
    assert caught.value.errors[0].param == "epochs"
    assert change(job, epochs=3).spec["epochs"] == 3
    assert asked(job) == [(1, "epochs", 3)]


def test_what_is_done_cannot_be_amended(database, change, queue):
    job = queue()
    cancel(database, job.id, keep="nothing", grace_seconds=0)
    with pytest.raises(ConflictError) as caught:
        change(job, epochs=9)
    assert caught.value.code == "job_done"
    with pytest.raises(NotFoundError):
        amend(database, "job_unknown", JobPatch.model_validate({"epochs": 2}))


def test_a_job_retried_from_scratch_has_not_begun(database, change, queue, take, train, told, asked):
    job = queue()
    taken = take()
    train(taken)
    cancel(database, job.id, keep="nothing", grace_seconds=0)
    complete(database, taken.attempt_id, Outcome("cancelled", "cancelled"), retry_delay_seconds=0)
    retry(database, job.id, "scratch")
    row = change(job, epochs=1)  # 2 were completed before
    assert (row.spec["epochs"], row.initial_spec) == (1, None)
    assert told(job)[-1].data == {"changes": {"epochs": 1}, "epoch": 0, "iteration": 0}
    assert asked(job) == []


def test_a_lost_attempt_is_followed_by_one_that_knows_what_was_asked(database, change, queue, take, train):
    job = queue()
    taken = take()
    train(taken)
    change(job, epochs=9)
    with database.write() as tx:
        amendments.applied(tx, job.number, 1, 2, 16)
    lose(database, taken.attempt_id, "It died.", retry_delay_seconds=0)
    change(job, epochs=10)
    second = take()
    assert second.job.initial_spec["epochs"] == 3
    assert [(one.number, one.value, one.iteration) for one in second.amendments] == [
        (1, 9, 16),
        (2, 10, None),
    ]


def test_what_was_asked_for_too_late_is_not_in_the_spec_of_a_job_that_succeeded(
    database, change, queue, take, train, row
):
    job = queue()
    taken = take()
    train(taken, epochs=2)
    change(job, optimizer={"learning_rate": 0.5}, name="kept")
    with database.write() as tx:
        amendments.applied(tx, job.number, 1, 2, 16)
    train(taken, epochs=3)
    change(job, epochs=9, early_stopping=POLICY)  # while the weights were written
    complete(database, taken.attempt_id, Outcome("succeeded", "completed"), retry_delay_seconds=0)
    after = row(job)
    assert (after.status, after.spec["epochs"], after.spec["early_stopping"]) == ("succeeded", 3, None)
    assert (after.spec["optimizer"]["learning_rate"], after.spec["name"]) == (0.5, "kept")
    assert after.plan == job.plan


def test_what_was_asked_for_and_took_effect_stays(database, change, queue, take, train, row):
    job = queue()
    taken = take()
    train(taken, epochs=2)
    change(job, epochs=4)
    with database.write() as tx:
        amendments.applied(tx, job.number, 1, 3, 24)
    train(taken, epochs=4)
    complete(database, taken.attempt_id, Outcome("succeeded", "completed"), retry_delay_seconds=0)
    assert row(job).spec["epochs"] == 4
