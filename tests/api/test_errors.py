"""Whatever is wrong with a request, the answer is a problem that says so, and never a 500."""

import asyncio
import json
import logging
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.api.conftest import SPEC

from epochd.api import errors
from epochd.api.app import create_app
from epochd.api.known_names import allowed_names
from epochd.contract.problems import Problem
from epochd.contract.spec import JobSpec
from epochd.errors import (
    ConflictError,
    DatabaseUnavailableError,
    EpochdError,
    InvalidRequestError,
    NotFoundError,
    NumericError,
    PayloadTooLargeError,
    UnauthorizedError,
)
from epochd.settings import Settings

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def database_kind():
    # What is wrong with a request has nothing to do with the database, but for the tests at the end.
    return "sqlite"


def problem(answer, status, code=None):
    """Check that an answer is a problem, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    Problem.model_validate(body)
    assert (body["status"], body["type"]) == (status, "about:blank")
    assert body["title"]
    assert body["detail"]
    if code is not None:
        assert body["code"] == code
    return body


def post(api, body, headers=JSON):
    return api.post("/v1/jobs", content=body, headers=headers)


WRONG = [
    ({"epochs": None}, "epochs", "wrong_type", "whole number"),
    ({"epochs": "4"}, "epochs", "wrong_type", '"4"'),
    ({"epochs": 2.5}, "epochs", "wrong_type", "whole number"),
    ({"epochs": True}, "epochs", "wrong_type", "whole number"),
    ({"epochs": 0}, "epochs", "out_of_range", "at least 1"),
    ({"epochs": 10**400}, "epochs", "out_of_range", "at most 1000000"),
    ({"batch_size": -5}, "batch_size", "out_of_range", "got -5"),
    ({"dataset": 5}, "dataset", "wrong_type", "string"),
    ({"dataset": ""}, "dataset", "too_short", "at least 1"),
    ({"dataset": {"name": "other"}}, "dataset.name", "not_one_of", "'synthetic'"),
    ({"dataset": {}}, "dataset.name", "required", "required"),
    ({"dataset": {"name": "synthetic", "sample": 5}}, "dataset.sample", "unknown_parameter", "'samples'"),
    ({"model": {"name": "mpl"}}, "model.name", "unknown_model", "Did you mean 'mlp'"),
    ({"model": {"name": "Resnet18"}}, "model.name", "unknown_model", "'resnet'"),
    ({"model": {"name": "no name"}}, "model.name", "invalid_format", "beginning with a letter"),
    ({"model": {"name": 3}}, "model.name", "wrong_type", "a string; got 3"),
    ({"model": {"name": None}}, "model.name", "wrong_type", "a string; got null"),
    ({"model": []}, "model", "wrong_type", "object"),
    ({"model": {}}, "model.name", "required", "required"),
    ({"model": {"hidden_sizes": [1]}}, "model.name", "required", "required"),
    ({"model": "mlp"}, "model", "wrong_type", "object"),
    (
        {"model": {"name": "mlp", "hidden_sizes": [64, 0]}},
        "model.hidden_sizes.1",
        "out_of_range",
        "at least 1",
    ),
    ({"model": {"name": "mlp", "hidden_sizes": []}}, "model.hidden_sizes", "too_short", "at least 1"),
    ({"model": {"name": "mlp", "hidden_sizes": 64}}, "model.hidden_sizes", "wrong_type", "array"),
    ({"model": {"name": "mlp", "dropout": 1}}, "model.dropout", "out_of_range", "less than 1"),
    ({"model": {"name": "linear", "dropout": 0}}, "model.dropout", "unknown_parameter", "known here: name"),
    ({"early_stopping": {"patience": -1}}, "early_stopping.patience", "out_of_range", "at least 0"),
    ({"early_stopping": {"patienc": 1}}, "early_stopping.patienc", "unknown_parameter", "'patience'"),
    ({"early_stopping": {"mode": "least"}}, "early_stopping.mode", "not_one_of", "'min' or 'max'"),
    ({"optimizer": {"name": "adamw", "betas": [0.9]}}, "optimizer.betas", "too_short", "at least 2"),
    (
        {"optimizer": {"name": "sgd", "learning_rate": 0}},
        "optimizer.learning_rate",
        "out_of_range",
        "greater",
    ),
    ({"device": "tpu"}, "device", "invalid_format", "cuda"),
    ({"device": "cuda:\N{ARABIC-INDIC DIGIT THREE}"}, "device", "invalid_format", "cuda"),
    ({"tags": {"bad key": "x"}}, "tags.bad key", "invalid_format", "must be 1 to 64 letters, digits"),
    ({"tags": {"a": 5}}, "tags.a", "wrong_type", "string"),
    ({"webhook": "http://x"}, "webhook", "wrong_type", "null"),
    ({"learning_rate": 0.1}, "learning_rate", "unknown_parameter", "known here"),
    ({"": 1}, "", "unknown_parameter", "known here"),
]


@pytest.mark.parametrize(("change", "param", "code", "words"), WRONG, ids=[f"{w[1]}-{w[2]}" for w in WRONG])
def test_messages_say_what_is_wrong_and_what_would_be_right(api, change, param, code, words):
    body = problem(api.post("/v1/jobs", json={**SPEC, **change}), 422, "invalid_request")
    assert [(error["param"], error["code"]) for error in body["errors"]] == [(param, code)]
    assert words in body["errors"][0]["message"]


def test_all_errors_are_told_at_once(api):
    body = problem(api.post("/v1/jobs", json={"epochs": 0, "colour": 1}), 422)
    assert {error["param"] for error in body["errors"]} == {"epochs", "dataset", "batch_size", "colour"}


def test_only_so_many_errors_are_told(api):
    body = problem(api.post("/v1/jobs", json={**SPEC, **{f"x{n}": 1 for n in range(5000)}}), 422)
    assert len(body["errors"]) == 50


def test_what_the_rules_find_wrong_looks_the_same(api):
    body = problem(api.post("/v1/jobs", json={**SPEC, "dataset": "iriss"}), 422)
    assert body["errors"][0]["param"] == "dataset"
    assert "iris" in body["errors"][0]["message"]


MALFORMED = {
    "cut off": b'{"epochs": 4',
    "no JSON": b"epochs=4",
    "trailing": b"{} {}",
    "NaN": b'{"epochs": NaN}',
    "Infinity": b'{"epochs": -Infinity}',
    "twice": b'{"epochs": 1, "epochs": 2}',
    "twice, deeper": b'{"model": {"name": "mlp", "name": "cnn"}}',
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "huge integer": b'{"epochs": ' + b"9" * 10_000 + b"}",
    "not UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"epochs": 1}'.encode("utf-16"),
    "NUL": rb'{"name": "a\u0000b"}',
    "NUL in a key": rb'{"\u0000": 1}',
    "half a surrogate": rb'{"tags": {"a": "\ud800"}}',
    "byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json(api, body):
    found = problem(post(api, body), 422, "malformed_json")
    assert found["errors"] == [{"param": "", "message": found["detail"], "code": "malformed_json"}]


def test_malformed_json_says_where(api):
    assert "line 2, column 5" in problem(post(api, b'{\n"a" 5}'), 422)["detail"]


@pytest.mark.parametrize("body", [b"[]", b"5", b'"text"', b"true", b"null"])
def test_a_body_that_is_no_object(api, body):
    found = problem(post(api, body), 422, "invalid_request")
    assert found["errors"][0]["message"].startswith("must be an object")


def test_no_body(api):
    found = problem(post(api, b""), 422, "invalid_request")
    assert found["errors"][0]["code"] == "required"


def test_a_number_out_of_a_double_is_not_finite(api):
    body = b'{"dataset": "iris", "epochs": 1, "batch_size": 8, "gradient_clip_norm": 1e999}'
    found = problem(post(api, body), 422)
    assert found["errors"][0]["code"] == "not_finite"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "nonsense"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        [("Content-Type", "application/json"), ("Content-Type", "application/json")],
        {},
    ],
)
def test_media_types(api, headers):
    problem(post(api, json.dumps(SPEC).encode(), headers), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "Application/JSON"])
def test_ways_to_say_json(api, content_type):
    assert post(api, json.dumps(SPEC), {"Content-Type": content_type}).status_code == 201


def test_a_body_too_large_is_refused_by_its_declared_size(api, settings):
    body = json.dumps({**SPEC, "name": "x" * settings.max_body_bytes})
    problem(post(api, body), 413, "payload_too_large")


def test_a_body_too_large_is_refused_while_it_streams(app, settings):
    """Whatever its Content-Length says, or does not say, no more is read than may be."""
    read, sent = [], []

    async def receive():
        read.append(65_536)
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")],
        "server": ("test", 80), "client": ("test", 1), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["code"] == "payload_too_large"
    assert sum(read) <= settings.max_body_bytes + 65_536


def test_the_largest_body_is_taken(api, settings):
    body = json.dumps(SPEC)
    assert post(api, body + " " * (settings.max_body_bytes - len(body))).status_code == 201


def test_paths_and_methods(api):
    assert "/v1/nothing" in problem(api.get("/v1/nothing"), 404, "not_found")["detail"]
    answer = api.patch("/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    problem(api.get("/v1/jobs/"), 404)
    answer = api.put("/v1/jobs/job_none")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, PATCH, DELETE"


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/attempts", "/v1/jobs/{id}/iterations", "/v1/jobs/{id}/epochs",
     "/v1/jobs/{id}/events", "/v1/jobs/{id}/artifacts", "/v1/jobs/{id}/artifacts/model.json"],
)  # fmt: skip
def test_unknown_query_parameters(api, create, path):
    found = problem(api.get(path.format(id=create()["id"]), params={"colour": "red"}), 422)
    assert [(error["param"], error["code"]) for error in found["errors"]] == [("colour", "unknown_parameter")]


def test_unknown_query_parameters_of_what_writes(api, create):
    job_id = create()["id"]
    for answer in (
        api.post("/v1/jobs?dry=1", json=SPEC),
        api.post("/v1/jobs/plan?x=1", json=SPEC),
        api.post(f"/v1/jobs/{job_id}/cancel?keep=last"),
        api.delete(f"/v1/jobs/{job_id}?force=1"),
    ):
        assert problem(answer, 422)["errors"][0]["code"] == "unknown_parameter"
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"


@pytest.mark.parametrize("digit", ["\N{ARABIC-INDIC DIGIT THREE}", "\U00011f50"])
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_digits_of_other_scripts_are_no_event_id(api, create, digit, accept):
    # The second one is a digit to Pydantic's Unicode, and none to Python's.
    path = f"/v1/jobs/{create()['id']}/events"
    found = problem(api.get(path, params={"after": digit}, headers={"Accept": accept}), 422)
    assert [(error["param"], error["code"]) for error in found["errors"]] == [("after", "invalid_format")]


def test_a_parameter_given_twice(api):
    found = problem(api.get("/v1/jobs?limit=1&limit=2&status=queued&status=running"), 422)
    assert [(error["param"], error["code"]) for error in found["errors"]] == [("limit", "repeated")]


def test_an_unexpected_error_tells_nothing_but_a_reference(app, api, monkeypatch, caplog):
    monkeypatch.setattr(app.state.database, "read", lambda: 1 / 0)
    with caplog.at_level(logging.ERROR, "epochd.api"):
        found = problem(api.get("/v1/jobs"), 500, "internal_error")
    assert "division" not in json.dumps(found)
    reference = found["detail"].rstrip(".").rpartition(" ")[2]
    assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequestError("no"), 422, "invalid_request"),
        (UnauthorizedError("no"), 401, "unauthorized"),
        (NotFoundError("no", code="job_not_found"), 404, "job_not_found"),
        (ConflictError("no"), 409, "conflict"),
        (PayloadTooLargeError("no"), 413, "payload_too_large"),
        (DatabaseUnavailableError("no"), 503, "database_unavailable"),
        (NumericError("secret", iteration=1), 500, "internal_error"),
        (EpochdError("secret"), 500, "internal_error"),
    ],
)
def test_the_mapping(error, status, code):
    answer = errors.problem_of(error)
    body = json.loads(answer.body)
    assert (answer.status_code, body["code"]) == (status, code)
    assert "secret" not in body["detail"]
    assert ("retry-after" in answer.headers) == (status == 503)


def test_a_database_that_is_away(tmp_path):
    url = "postgresql://someone:sesame@127.0.0.1:1/none"
    with TestClient(create_app(Settings(database_url=url, data_dir=tmp_path))) as client:
        answer = client.get("/v1/jobs")
        problem(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert "sesame" not in answer.text
        assert client.get("/healthz").status_code == 200


def test_allowed_names_follow_unions():
    assert allowed_names(JobSpec, ["model", "linear"]) == ["name"]
    assert "hidden_sizes" in allowed_names(JobSpec, ["model", "mlp"])
    assert "samples" in allowed_names(JobSpec, ["dataset", "synthetic"])
    assert "patience" in allowed_names(JobSpec, ["early_stopping"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted(JobSpec.model_fields)
specs = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(["iris", {"name": "synthetic"}]) | json_values,
        "epochs": st.integers(0, 3) | json_values,
    },
    optional={name: json_values for name in NAMES if name not in ("dataset", "epochs")},
)
FUZZ = hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(body=specs)
@FUZZ
def test_no_spec_is_an_error_of_ours(api, body):
    answer = post(api, json.dumps(body))
    assert answer.status_code in {201, 422}, answer.text
    if answer.status_code == 422:
        assert problem(answer, 422)["errors"]


@given(body=st.binary(max_size=200))
@FUZZ
def test_no_bytes_are_an_error_of_ours(api, body):
    assert post(api, body).status_code == 422


@given(name=st.sampled_from(["limit", "after", "status", "tag", "name", "x"]), value=st.text(max_size=20))
@FUZZ
def test_no_query_is_an_error_of_ours(api, name, value):
    assert api.get("/v1/jobs", params={name: value}).status_code in {200, 422}


@given(
    job_id=st.text(min_size=1, max_size=20).filter(lambda text: text.strip("./") == text and "?" not in text)
)
@FUZZ
def test_no_path_is_an_error_of_ours(api, job_id):
    answer = api.get(f"/v1/jobs/{quote(job_id.encode(errors='replace'), safe='')}")
    assert answer.status_code == 404
