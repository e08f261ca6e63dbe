"""Iterations in columns, epochs in rows, both as files."""

import csv
import io
import json
import math
import re

import httpx
import numpy as np
import polars as pl
import pytest

from epochd.api.metrics import FIELDS
from epochd.contract.metrics import Epochs, Iterations
from epochd.store import metrics
from epochd.store.metrics import Block, NewEpoch


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
    assert get("iterations", points=100, reduction="extremes").json()["columns"] == columns
    means = get("iterations", points=100, reduction="mean", fields="learning_rate").json()["columns"]
    assert list(means) == ["iteration", "learning_rate"]
    assert len(means["iteration"]) <= 100
    assert means["iteration"][-1] == 1500


def test_points_of_a_part(get):
    iterations = get("iterations", points=100, after=700, up_to=1400).json()["columns"]["iteration"]
    assert (iterations[0], iterations[-1]) == (701, 1400)
    assert 20 < len(iterations) <= 100
    assert get("iterations", points=100, after=1490).json()["columns"]["iteration"] == list(range(1491, 1501))


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_up_to(get, form):
    def found(**params):
        answer = get("iterations", format=form, fields="epoch", **params)
        if form == "json":
            return answer.json()["columns"]["iteration"], answer.json()["next"]
        following = answer.links.get("next")
        at = following and int(httpx.URL(following["url"]).params["after"])
        return [json.loads(line)["iteration"] for line in answer.text.splitlines()], at

    assert found(after=20, up_to=30) == (list(range(21, 31)), None)
    assert found(after=20, up_to=30, limit=4) == (list(range(21, 25)), 24)
    assert found(after=20, up_to=30, limit=10) == (list(range(21, 31)), None)
    assert found(up_to=9999, after=1498) == ([1499, 1500], None)
    assert found(after=30, up_to=30) == ([], None)


def test_wrong_parameters(get):
    for what, params, param in (
        ("iterations", {"limit": 100_001}, "limit"),
        ("iterations", {"limit": 0}, "limit"),
        ("iterations", {"after": -1}, "after"),
        ("iterations", {"after": 2**63}, "after"),
        ("iterations", {"points": 0}, "points"),
        ("iterations", {"points": 5, "limit": 3}, "points"),
        ("iterations", {"up_to": -1}, "up_to"),
        ("iterations", {"reduction": "mean"}, "reduction"),
        ("iterations", {"reduction": "median", "points": 5}, "reduction"),
        ("iterations", {"fields": "loss"}, "fields"),
        ("iterations", {"attempt": 0}, "attempt"),
        ("iterations", {"format": "xlsx"}, "format"),
        ("iterations", {"format": "csv", "points": 5, "limit": 3}, "points"),
        ("iterations", {"reduction": "mean"}, "reduction"),
        ("iterations", {"format": "parquet", "limit": 100_001}, "limit"),
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
        ("application/vnd.apache.parquet, text/csv;q=0.5", "application/vnd.apache.parquet"),
    ):
        answer = get("iterations", headers={"Accept": accept} if accept else None, limit=1)
        assert answer.headers["content-type"].split(";")[0] == media_type, accept


def test_what_cannot_be_had(get):
    for accept in ("application/parquet", "text/html", "text/csv;q=0", "*/*;q=0"):
        assert get("epochs", status=406, headers={"Accept": accept}).json()["code"] == "not_acceptable"


def table(answer):
    """Read a file in whatever format it is, as columns."""
    kind = answer.headers["content-type"].split(";")[0]
    if kind == "application/vnd.apache.parquet":
        return pl.read_parquet(io.BytesIO(answer.content)).to_dict(as_series=False)
    if kind == "text/csv":
        header, *rows = csv.reader(io.StringIO(answer.text))
        values = {"": None, "true": True, "false": False}
        cells = [[values[cell] if cell in values else json.loads(cell) for cell in row] for row in rows]
    else:
        lines = [json.loads(line) for line in answer.text.splitlines()]
        header, cells = list(lines[0]), [list(line.values()) for line in lines]
    return {name: [row[place] for row in cells] for place, name in enumerate(header)}


FILES = ("csv", "ndjson", "parquet")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_the_whole_series(get, kind):
    for params in ({}, {"attempt": 1}, {"fields": "train_loss"}, {"after": 1490}, {"points": 20},
                   {"points": 20, "reduction": "mean", "fields": "train_loss,epoch"}):  # fmt: skip
        more = {} if "points" in params else {"limit": 100_000}
        answer = get("iterations", format=kind, **params)
        assert table(answer) == get("iterations", **params, **more).json()["columns"], params
        assert "link" not in answer.headers


@pytest.mark.parametrize("kind", FILES)
def test_a_file_with_a_limit_is_a_page(get, kind):
    answer = get("iterations", format=kind, limit=7, after=3)
    assert table(answer)["iteration"] == list(range(4, 11))
    assert "after=10" in answer.links["next"]["url"]
    answer = get("epochs", format=kind, limit=1)
    assert table(answer)["epoch"] == [1]
    assert "after=1" in answer.links["next"]["url"]
    assert "link" not in get("epochs", format=kind, limit=2).headers


@pytest.mark.parametrize("kind", FILES)
def test_a_file_has_a_name(get, job_id, kind):
    for what in ("iterations", "epochs"):
        disposition = get(what, format=kind).headers["content-disposition"]
        assert disposition == f'attachment; filename="{job_id}-{what}.{kind}"'


ODD = [0.1, 1e-7, 1e10, 3.4028235e38, 1e-45, -0.0, 16777216.0, 0.001, float("nan"), float("inf"), -2.5]


@pytest.fixture
def odd_job(create, trainer, database):
    """A job with values that are spelt in more than one way, and a series that is cut into parts."""
    job_id = create()["id"]
    trainer.start()
    values = np.array(ODD * 2000, np.float32)
    with database.write() as tx:
        blocks = [
            Block(number, *(values[number * 1024 : (number + 1) * 1024],) * 4)
            for number in range(-(-len(values) // 1024))
        ]
        metrics.record_iterations(tx, trainer.claim.attempt_id, 10, blocks)
        rows = [
            NewEpoch(1, 10, {"train_loss": 1e-7, "validation_loss": 3e22}, 1e-05, 0.5, is_best=True),
            NewEpoch(2, 20, {"train_loss": None, "validation_f1": 0.1}, 1e-16, 1.0, is_best=False),
        ]
        metrics.record_epochs(tx, trainer.claim.attempt_id, rows)
    return job_id


def test_numbers_are_spelt_as_in_json(api, odd_job):
    url, n = f"/v1/jobs/{odd_job}/iterations", len(ODD) * 2000
    for params in ({"limit": 100_000}, {"points": 300}, {"points": 30, "reduction": "mean"}):
        columns = re.findall(r'"(\w+)":\[([^]]*)]', api.get(url, params=params).text)
        names, rows = (
            [name for name, _ in columns],
            list(zip(*(text.split(",") for _, text in columns), strict=True)),
        )
        assert "points" in params or len(rows) == n
        objects = [
            "{" + ",".join(f'"{n}":{cell}' for n, cell in zip(names, row, strict=True)) + "}\n"
            for row in rows
        ]
        assert api.get(url, params={**params, "format": "ndjson"}).text == "".join(objects)
        lines = [names, *([cell.replace("null", "") for cell in row] for row in rows)]
        assert api.get(url, params={**params, "format": "csv"}).text == "".join(
            f"{','.join(x)}\r\n" for x in lines
        )


def test_parquet_has_types_and_nulls(api, odd_job):
    for params in ({}, {"points": 50}):
        answer = api.get(f"/v1/jobs/{odd_job}/iterations", params={**params, "format": "parquet"})
        frame = pl.read_parquet(io.BytesIO(answer.content))
        assert dict(frame.schema) == {
            "iteration": pl.Int64, "epoch": pl.Int64, "train_loss": pl.Float32, "learning_rate": pl.Float32,
            "gradient_norm": pl.Float32, "samples_per_second": pl.Float32,
        }  # fmt: skip
        assert not frame["train_loss"].is_nan().any()
    whole = pl.read_parquet(io.BytesIO(api.get(f"/v1/jobs/{odd_job}/iterations?format=parquet").content))
    expected = [
        value if math.isfinite(value) else None for value in np.array(ODD, np.float32).tolist()
    ] * 2000
    assert whole["train_loss"].to_list() == expected


def test_metrics_that_only_some_epochs_have(api, odd_job):
    url = f"/v1/jobs/{odd_job}/epochs"
    first, second = api.get(url).json()["data"]
    names = ["epoch", "train_loss", "validation_loss", "validation_f1", "learning_rate", "seconds", "is_best"]
    expected = {name: [first.get(name), second.get(name)] for name in names}
    for kind in FILES:
        found = table(api.get(url, params={"format": kind}))
        assert (list(found), found) == (names, expected), kind
    lines = api.get(url, params={"format": "csv"}).text.splitlines()
    assert lines[1:] == ["1,1e-7,3e+22,,0.00001,0.5,true", "2,,,0.1,1e-16,1.0,false"]
    frame = pl.read_parquet(io.BytesIO(api.get(url, params={"format": "parquet"}).content))
    types = [pl.Int64, *[pl.Float64] * 5, pl.Boolean]
    assert list(frame.schema.values()) == types


def test_empty_series_are_valid_files(api, create):
    job_id = create()["id"]
    for what, names in (
        ("iterations", FIELDS),
        ("epochs", ("epoch", "train_loss", "validation_loss", "learning_rate", "seconds", "is_best")),
    ):
        for params in ({}, {"points": 5}) if what == "iterations" else ({},):
            url = f"/v1/jobs/{job_id}/{what}"
            assert api.get(url, params={**params, "format": "csv"}).text == ",".join(names) + "\r\n"
            assert api.get(url, params={**params, "format": "ndjson"}).content == b""
            answer = api.get(url, params={**params, "format": "parquet"})
            frame = pl.read_parquet(io.BytesIO(answer.content))
            assert (frame.height, tuple(frame.columns)) == (0, names)


def test_errors_before_the_first_byte_are_problems(get, api):
    for kind in FILES:
        assert get("iterations", status=404, attempt=3, format=kind).json()["code"] == "attempt_not_found"
        assert get("epochs", status=404, attempt=3, format=kind).json()["code"] == "attempt_not_found"
        answer = api.get("/v1/jobs/job_none/iterations", params={"format": kind})
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_a_job_without_metrics(api, create):
    job_id = create()["id"]
    assert api.get(f"/v1/jobs/{job_id}/iterations").json()["columns"]["iteration"] == []
    assert api.get(f"/v1/jobs/{job_id}/iterations", params={"points": 5}).status_code == 200
    assert api.get(f"/v1/jobs/{job_id}/epochs").json() == {"data": [], "next": None}
    assert api.get(f"/v1/jobs/{job_id}/epochs", params={"format": "csv"}).status_code == 200
    assert api.get("/v1/jobs/job_none/iterations").status_code == 404
