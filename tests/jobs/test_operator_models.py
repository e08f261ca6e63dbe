"""Jobs that train a model of the operator's."""

import pytest

from epochd.contract.models import OperatorModel
from epochd.contract.spec import JobSpec
from epochd.errors import InvalidRequestError
from epochd.jobs.claim import claim
from epochd.jobs.submit import plan_job
from epochd.store import models, workers

ACME = {
    "name": "acme",
    "description": "",
    "kinds": ["table"],
    "tasks": ["classification"],
    "encoding": "one_hot",
    "parameters": {
        "type": "object",
        "properties": {"width": {"type": "integer", "minimum": 1, "default": 8}},
        "additionalProperties": False,
    },
    "package": {"name": "acme-models", "version": "1.2.0"},
}


@pytest.fixture
def publish(database):
    """Let a worker live that has these models and devices."""

    def make(id_, *names, devices=("cpu",)):
        with database.write() as tx:
            models.publish(tx, [{**ACME, "name": name} for name in names])
            workers.register(tx, id=id_, host="h", pid=1, devices=devices, slots=1, models=names)

    return make


@pytest.fixture
def plan(database):
    def make(**changes):
        with database.read() as tx:
            return plan_job(
                tx, JobSpec.model_validate({"dataset": "iris", "epochs": 3, "batch_size": 16, **changes})
            )

    return make


@pytest.fixture
def problems(plan):
    def find(**changes):
        with pytest.raises(InvalidRequestError) as caught:
            plan(**changes)
        return [(one.param, one.code) for one in caught.value.errors], caught.value.errors[0].message

    return find


def test_defaults_are_filled_into_the_spec_and_stay(publish, queue, row):
    publish("w", "acme")
    job = queue(model={"name": "acme"})
    assert row(job).spec["model"] == {"name": "acme", "width": 8}
    assert row(job).requires == "acme"
    assert "model_not_offered" not in [one["code"] for one in row(job).advice]
    assert JobSpec.model_validate(row(job).spec).model == OperatorModel(name="acme", width=8)
    assert row(queue()).requires is None


def test_what_does_not_fit_the_schema_or_the_data_is_refused(publish, problems):
    publish("w", "acme")
    assert problems(model={"name": "acme", "width": 0})[0] == [("model.width", "out_of_range")]
    assert problems(model={"name": "acme", "deep": 1, "width": "a"})[0] == [
        ("model.deep", "unknown_parameter"),
        ("model.width", "wrong_type"),
    ]
    assert problems(dataset="diabetes", model={"name": "acme"})[0] == [
        ("model.name", "model_does_not_fit_task")
    ]
    assert problems(dataset="digits", model={"name": "acme"})[0] == [
        ("model.name", "model_does_not_fit_data")
    ]


@pytest.mark.parametrize(("name", "close"), [("acne", "'acme'"), ("mpl", "'mlp'")])
def test_a_model_that_nobody_published_is_unknown(publish, problems, name, close):
    publish("w", "acme")
    errors, message = problems(model={"name": name, "width": 3})
    assert errors == [("model.name", "unknown_model")]
    assert f"Did you mean {close}" in message
    assert "linear, mlp" in message
    assert "acme" in message


@pytest.mark.parametrize(
    "value", ["\x00", "\ud800", 1e400, 2**64, [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]], {"\x00": 1}]
)
def test_what_no_database_keeps_is_refused(value):
    with pytest.raises(ValueError, match="deep"):
        JobSpec.model_validate(
            {"dataset": "iris", "epochs": 1, "batch_size": 8, "model": {"name": "a", "deep": value}}
        )


def test_only_a_worker_that_has_the_model_takes_the_job(database, publish, queue, take):
    publish("w", "acme", "other")
    special, plain = queue(model={"name": "acme"}, priority=5), queue()
    assert take("without").job.id == plain.id
    assert take("without") is None
    assert claim(database, worker="w", device="cpu", lease_seconds=30, models=["other"]) is None
    taken = claim(database, worker="w", device="cpu", lease_seconds=30, models=["other", "acme"])
    assert taken.job.id == special.id


def test_a_job_of_a_model_that_is_gone_waits_and_says_so(database, publish, queue, take, plan, row):
    publish("w", "acme")
    with database.write() as tx:
        workers.remove(tx, "w")
    job = queue(model={"name": "acme"})
    [advice] = [one for one in row(job).advice if one["code"] == "model_not_offered"]
    assert advice["param"] == "model.name"
    assert "No worker that is alive has the model 'acme'" in advice["message"]
    assert take() is None
    publish("v", "acme")
    assert "model_not_offered" not in [one.code for one in plan(model={"name": "acme"}).advice]
    assert claim(database, worker="v", device="cpu", lease_seconds=30, models=["acme"]).job.id == job.id


def test_a_gpu_that_lacks_the_model_is_not_waited_for(database, publish, queue):
    publish("cpu-worker", "acme")
    publish("gpu-worker", devices=("cuda:0",))
    plain, special = queue(device="cuda"), queue(device="cuda", model={"name": "acme"})
    taken = claim(database, worker="cpu-worker", device="cpu", lease_seconds=30, models=["acme"])
    assert taken.job.id == special.id, "whoever takes it says that there is no GPU"
    assert claim(database, worker="gpu-worker", device="cuda:0", lease_seconds=30).job.id == plain.id
