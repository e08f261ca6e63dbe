"""GET /v1/models, and what is answered about jobs of the operator's models."""

import jsonschema
import pytest
from tests.jobs.test_operator_models import ACME

from epochd.contract.model_list import ModelList
from epochd.contract.models import BUILTIN_MODELS
from epochd.store import models, workers


@pytest.fixture
def publish(database):
    with database.write() as tx:
        models.publish(tx, [ACME])
        workers.register(tx, id="w", host="h", pid=1, devices=["cpu"], slots=1, models=["acme"])
        workers.register(tx, id="v", host="h", pid=2, devices=["cpu"], slots=1)


def test_every_model_comes_with_its_schema_and_its_defaults(api, publish):
    answer = api.get("/v1/models")
    assert answer.status_code == 200
    found = {one.name: one for one in ModelList.model_validate(answer.json()).data}
    assert list(found) == [*BUILTIN_MODELS, "acme"]
    for one in found.values():
        jsonschema.Draft202012Validator.check_schema(one.parameters)
        jsonschema.validate(one.defaults, one.parameters)
        assert one.description or one.name == "acme"
    assert found["cnn"].kinds == ["image"]
    assert found["ft_transformer"].encoding == "codes"
    assert (found["mlp"].workers, found["mlp"].package, found["mlp"].published_at) == (2, None, None)
    assert (found["acme"].workers, found["acme"].package.version) == (1, "1.2.0")


def test_the_defaults_are_what_a_job_is_resolved_to(api, publish, create):
    found = {one["name"]: one["defaults"] for one in api.get("/v1/models").json()["data"]}
    assert create(model={"name": "mlp"})["spec"]["model"] == {"name": "mlp", **found["mlp"]}
    assert create(model={"name": "acme"})["spec"]["model"] == {"name": "acme", **found["acme"]}


def test_wrong_parameters_are_answered_by_name(api, publish):
    body = {
        "dataset": "iris",
        "epochs": 1,
        "batch_size": 8,
        "model": {"name": "acme", "wdith": 1, "width": 0},
    }
    answer = api.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    assert [(one["param"], one["code"]) for one in answer.json()["errors"]] == [
        ("model.wdith", "unknown_parameter"),
        ("model.width", "out_of_range"),
    ]


def test_an_unknown_model_is_answered_with_what_there_is(api, publish):
    answer = api.post(
        "/v1/jobs", json={"dataset": "iris", "epochs": 1, "batch_size": 8, "model": {"name": "acmee"}}
    )
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert (error["param"], error["code"]) == ("model.name", "unknown_model")
    assert "'acme'" in error["message"]


@pytest.mark.parametrize(
    "value", ["1e400", "18446744073709551616", '"\\u0000"', '"\\ud800"', "[" * 900 + "]" * 900]
)
def test_what_no_database_keeps_is_a_422(api, publish, value):
    body = (
        f'{{"dataset": "iris", "epochs": 1, "batch_size": 8, "model": {{"name": "acme", "width": {value}}}}}'
    )
    answer = api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]
