"""Iterations in columns, epochs in rows, both as files."""

import csv
import io
import json

import pytest

from epochd.api.metrics import FIELDS
from epochd.contract.metrics import Epochs, Iterations


@pytest.fixture
def job_id(create, trainer):
    """A job whose first attempt was lost after 25 iterations, and whose second has recorded 1500."""
    job_id = create()["id"]
    trainer.start().iterate(25)
    trainer.lose()
    trainer.start().iterate(10)
    trainer.complete_epoch(validation_accuracy=0.5)
    trainer.iterate(1490)
    trainer.complete_epoch(validation_accuracy=None)
    return job_id


@pytest.fixture
def get(api, job_id):
    def fetch(what, status=200, headers=None, **params):
        answer = api.get(f"/v1/jobs/{job_id}/{what}", params=params, headers=headers)
        assert answer.status_code == status, answer.text
        return answer

    return fetch


def test_a_slice_of_iterations(get):
    body = get("iterations", after=1020, limit=10).json()
    Iterations.model_validate(body)
    columns = body["columns"]
    assert columns["iteration"] == list(range(1021, 1031))
    assert columns["train_loss"] == [2_000_000 + iteration for iteration in columns["iteration"]]
    assert columns["epoch"][0] == 103
    assert body["next"] == 1030


def test_pages_of_iterations_are_the_series(get):
    found, after = [], 0
    while after is not None:
        body = get("iterations", after=after, limit=400).json()
        found += body["columns"]["iteration"]
        after = body["next"]
    assert found == list(range(1, 1501))


def test_a_thousand_by_default(get):
    assert len(get("iterations").json()["columns"]["iteration"]) == 1000


def test_one_attempt(get):
    body = get("iterations", attempt=1).json()
    assert body["columns"]["iteration"] == list(range(1, 26))
    assert body["columns"]["train_loss"][0] == 1_000_001
    assert get("iterations", status=404, attempt=3).json()["code"] == "attempt_not_found"
    assert get("epochs", attempt=1).json()["data"] == []


@pytest.mark.parametrize("fields", ["train_loss,epoch", ["train_loss", "epoch"], " train_loss , epoch"])
def test_fields(get, fields):
    assert list(get("iterations", fields=fields, limit=1).json()["columns"]) == [
        "iteration",
        "epoch",
        "train_loss",
    ]


def test_points(get):
    columns = get("iterations", points=100).json()["columns"]
    assert len(columns["iteration"]) <= 100
    assert (columns["iteration"][0], columns["iteration"][-1]) == (1, 1500)


def test_wrong_parameters(get):
    for what, params, param in (
        ("iterations", {"limit": 100_001}, "limit"),
        ("iterations", {"limit": 0}, "limit"),
        ("iterations", {"after": -1}, "after"),
        ("iterations", {"after": 2**63}, "after"),
        ("iterations", {"points": 0}, "points"),
        ("iterations", {"points": 5, "after": 3}, "points"),
        ("iterations", {"fields": "loss"}, "fields"),
        ("iterations", {"attempt": 0}, "attempt"),
        ("iterations", {"format": "parquet"}, "format"),
        ("epochs", {"after": "x"}, "after"),
        ("epochs", {"limit": 10_001}, "limit"),
    ):
        errors = get(what, status=422, **params).json()["errors"]
        assert [error["param"] for error in errors] == [param]


def test_largest_positions_are_taken(get):
    assert get("iterations", after=2**53 - 1).json() == {
        "columns": {name: [] for name in FIELDS},
        "next": None,
    }
    assert get("epochs", after=2**53 - 1).json() == {"data": [], "next": None}


def test_epochs(get):
    body = get("epochs").json()
    Epochs.model_validate(body)
    first, last = body["data"]
    assert (first["epoch"], first["validation_accuracy"], first["is_best"]) == (1, 0.5, False)
    assert (last["epoch"], last["validation_accuracy"], last["is_best"]) == (150, None, True)
    assert get("epochs", after=1).json()["data"] == [last]
    assert get("epochs", limit=1).json()["next"] == 1


@pytest.mark.parametrize("asked", [{"format": "csv"}, {"headers": {"Accept": "text/csv"}}])
def test_iterations_as_csv(get, asked):
    answer = get("iterations", limit=2, after=5, **asked)
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["iteration"] for row in rows] == ["6", "7"]
    assert float(rows[0]["train_loss"]) == 2_000_006
    assert answer.links["next"]["url"].endswith("after=7") or "after=7" in answer.links["next"]["url"]


@pytest.mark.parametrize("asked", [{"format": "ndjson"}, {"headers": {"Accept": "application/x-ndjson"}}])
def test_iterations_as_ndjson(get, asked):
    answer = get("iterations", limit=2, fields="train_loss", **asked)
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert rows == [{"iteration": n, "train_loss": 2_000_000 + n} for n in (1, 2)]


def test_epochs_as_files(get):
    rows = list(csv.DictReader(io.StringIO(get("epochs", format="csv").text)))
    assert (rows[0]["epoch"], rows[0]["is_best"], rows[1]["validation_accuracy"]) == ("1", "false", "")
    lines = [json.loads(line) for line in get("epochs", format="ndjson").text.splitlines()]
    assert lines == get("epochs").json()["data"]


def test_following_the_link_of_a_file_reads_the_whole_series(get, api):
    answer, found = get("iterations", format="csv", limit=600, fields="epoch"), []
    while True:
        found += [int(row["iteration"]) for row in csv.DictReader(io.StringIO(answer.text))]
        if "next" not in answer.links:
            break
        answer = api.get(answer.links["next"]["url"])
    assert found == list(range(1, 1501))


def test_negotiation(get):
    for accept, media_type in (
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/html, */*;q=0.8", "application/json"),
        ("text/csv, application/json;q=0.9", "text/csv"),
        ("application/json;q=0.1, text/*", "text/csv"),
        ("text/csv;q=0, */*", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
    ):
        answer = get("iterations", headers={"Accept": accept} if accept else None, limit=1)
        assert answer.headers["content-type"].split(";")[0] == media_type, accept


def test_what_cannot_be_had(get):
    for accept in ("application/vnd.apache.parquet", "text/html", "text/csv;q=0", "*/*;q=0"):
        assert get("epochs", status=406, headers={"Accept": accept}).json()["code"] == "not_acceptable"


def test_a_job_without_metrics(api, create):
    job_id = create()["id"]
    assert api.get(f"/v1/jobs/{job_id}/iterations").json()["columns"]["iteration"] == []
    assert api.get(f"/v1/jobs/{job_id}/iterations", params={"points": 5}).status_code == 200
    assert api.get(f"/v1/jobs/{job_id}/epochs").json() == {"data": [], "next": None}
    assert api.get(f"/v1/jobs/{job_id}/epochs", params={"format": "csv"}).status_code == 200
    assert api.get("/v1/jobs/job_none/iterations").status_code == 404
