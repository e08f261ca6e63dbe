"""The OpenAPI document: committed, complete, and with examples that work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from epochd.api import example_problems, examples, openapi
from epochd.client.events import parse
from epochd.contract.attempts import AttemptList
from epochd.contract.events import EVENT_DATA, Event, Events, EventType
from epochd.contract.job import ArtifactList, Job, PlannedJob
from epochd.contract.metrics import Epochs, Iterations
from epochd.contract.problems import Problem

ROOT = Path(__file__).parents[2]
ENDPOINTS = {
    "POST /v1/jobs", "POST /v1/jobs/plan", "GET /v1/jobs", "GET /v1/jobs/{job_id}", "PATCH /v1/jobs/{job_id}",
    "DELETE /v1/jobs/{job_id}", "POST /v1/jobs/{job_id}/cancel", "POST /v1/jobs/{job_id}/pause",
    "POST /v1/jobs/{job_id}/resume", "POST /v1/jobs/{job_id}/retry", "GET /v1/jobs/{job_id}/attempts",
    "GET /v1/jobs/{job_id}/iterations", "GET /v1/jobs/{job_id}/epochs", "GET /v1/jobs/{job_id}/events",
    "GET /v1/jobs/{job_id}/artifacts", "GET /v1/jobs/{job_id}/artifacts/{name}", "GET /healthz", "GET /readyz",
    "GET /metrics", "POST /v1/datasets", "GET /v1/datasets", "GET /v1/datasets/{dataset}",
    "DELETE /v1/datasets/{dataset}", "GET /v1/models", "GET /v1/jobs/{a}/diff/{b}",
    "POST /v1/jobs/{job_id}/early-stopping/what-if",
    "GET /v1/metrics/compare", "GET /v1/jobs/{job_id}/diagnosis",
    "POST /v1/batch-size", "GET /v1/batch-size/{measurement_id}", "GET /v1/workers",
}  # fmt: skip


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture(scope="module")
def document():
    return json.loads(openapi.rendered())


@pytest.fixture(scope="module")
def operations(document):
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_committed_document_is_the_newest():
    committed = (ROOT / "openapi.json").read_text().splitlines()
    assert openapi.rendered().splitlines() == committed, "run: python -m epochd.api.openapi openapi.json"


def test_it_can_be_written_by_a_command(tmp_path):
    subprocess.run([sys.executable, "-m", "epochd.api.openapi", tmp_path / "o.json"], check=True, timeout=60)
    assert (tmp_path / "o.json").read_text() == openapi.rendered()


def test_making_it_makes_nothing_else(tmp_path):
    code = "import epochd.api.openapi as o, sys; o.rendered(); print('torch' in sys.modules, 'sklearn' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert out.stdout.split() == ["False", "False"]
    assert list(tmp_path.iterdir()) == []


def test_every_endpoint_is_in_it(operations):
    assert set(operations) == ENDPOINTS


def test_every_operation_is_described(operations):
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for name, operation in operations.items():
        assert operation["operationId"].replace("_", "").isalpha(), name
        assert operation["summary"], name
        assert operation["tags"], name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])


def test_every_answer_has_an_example(operations):
    for name, operation in operations.items():
        assert "500" in operation["responses"], name
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            for media_type, content in response.get("content", {}).items():
                binary = content.get("schema", {}).get("format") == "binary"
                assert binary or "example" in content or content["examples"], (name, status, media_type)
                assert "schema" in content, (name, status, media_type)


def test_generators_of_clients_understand_every_default(document):
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert not isinstance(described.get("default"), dict), (name, field)


def test_every_error_is_a_problem(operations):
    for name, operation in operations.items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (name, status)


def test_every_reference_leads_somewhere(document):
    schemas = document["components"]["schemas"]
    references = []

    def walk(value):
        if isinstance(value, dict):
            references.extend(value[key] for key in ["$ref"] if key in value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert references
    assert {reference.rpartition("/")[2] for reference in references} <= set(schemas)


def test_answers_in_examples_are_what_the_models_say():
    for job in (examples.JOB, examples.RUNNING, examples.CANCELLING, examples.PAUSING, examples.QUEUED):
        assert Job.model_validate(job).model_dump(mode="json") == job
    PlannedJob.model_validate(examples.PLANNED)
    Events.model_validate(examples.EVENTS)
    Iterations.model_validate(examples.ITERATIONS)
    Epochs.model_validate(examples.EPOCHS)
    ArtifactList.model_validate(examples.ARTIFACTS)
    AttemptList.model_validate(examples.ATTEMPTS)
    conflicts = [example["value"] for example in example_problems.CONFLICTS.values()]
    for problem in [*example_problems.PROBLEMS.values(), *conflicts]:
        Problem.model_validate(problem)
    assert [conflict["code"] for conflict in conflicts] == list(example_problems.CONFLICTS)


def test_the_data_of_every_event_is_described(operations):
    assert set(EVENT_DATA) == set(get_args(EventType))
    description = operations["GET /v1/jobs/{job_id}/events"]["description"]
    for kind, data in EVENT_DATA.items():
        assert f"- `{kind}`: {data}." in description
    saved = examples.EVENTS["data"][3]
    assert all(f"`{field}`" in EVENT_DATA[saved["type"]] for field in saved["data"])


def test_the_stream_in_the_example_is_a_stream():
    messages = list(parse([examples.STREAM.encode()]))
    assert [message.type for message in messages] == [
        "job.queued",
        "job.started",
        "iterations",
        "job.succeeded",
    ]
    for message in messages:
        if message.type != "iterations":
            assert str(Event.model_validate(message.json()).seq) == message.id


def test_requests_in_examples_work(api):
    created = {}
    for name, example in examples.SPECS.items():
        planned = api.post("/v1/jobs/plan", json=example["value"])
        assert planned.status_code == 200, (name, planned.text)
        created[name] = api.post("/v1/jobs", json=example["value"])
        assert created[name].status_code == 201, (name, created[name].text)
    url = created["digits"].headers["location"]
    for example in examples.PATCHES.values():
        assert api.patch(url, json=example["value"]).status_code == 200, example["summary"]
    for example in examples.NOTHING.values():
        assert api.post(f"{url}/pause", json=example["value"]).json()["status"] == "paused"
        assert api.post(f"{url}/resume", json=example["value"]).json()["status"] == "queued"
    for example in examples.CANCELS.values():
        assert api.post(f"{url}/cancel", json=example["value"]).status_code == 202
    for example in examples.RETRIES.values():
        assert api.post(f"{url}/retry", json=example["value"]).json()["status"] == "queued"
        assert api.post(f"{url}/cancel").json()["status"] == "cancelled"


def test_the_plan_in_the_example_is_that_of_its_request(api):
    first = next(iter(examples.SPECS.values()))
    assert api.post("/v1/jobs/plan", json=first["value"]).json() == examples.PLANNED


def test_answers_of_the_service_have_the_documented_status(api, operations):
    """What tests elsewhere rely on: every status that a success has is in the document."""
    job = api.post("/v1/jobs", json=examples.SPECS["least"]["value"])
    assert str(job.status_code) in operations["POST /v1/jobs"]["responses"]
    cancel = api.post(f"/v1/jobs/{job.json()['id']}/cancel")
    assert str(cancel.status_code) in operations["POST /v1/jobs/{job_id}/cancel"]["responses"]
    assert "204" in operations["GET /v1/jobs/{job_id}/events"]["responses"]


def test_the_service_publishes_it(api, document):
    assert api.get("/openapi.json").json() == document
    assert api.get("/docs").status_code == 200
