"""A whole series in parts: complete or an error, whatever happens between two of them."""

import json
import subprocess
import sys

import numpy as np
import pytest

from epochd.errors import NotFoundError
from epochd.store import attempts, jobs, metrics, series
from epochd.store.metrics import NewEpoch


@pytest.fixture
def open_series(database):
    def open_(job, **options):
        with database.read() as tx:
            return series.open_iterations(tx, job, **options)

    return open_


@pytest.fixture
def record_epochs(database):
    def record(claim, *epochs, best=(), **values):
        with database.write() as tx:
            rows = [NewEpoch(epoch, epoch * 100, {"train_loss": 1 / epoch, **values}, 0.1, 0.5, epoch in best)
                    for epoch in epochs]  # fmt: skip
            metrics.record_epochs(tx, claim.attempt_id, rows)

    return record


@pytest.fixture
def delete(database):
    def delete_(claim):
        with database.write() as tx:
            attempts.finish(tx, claim.attempt_id, outcome="failed")
            jobs.transition(tx, claim.job.number, expected=("running",), status="failed")
            jobs.delete(tx, claim.job.id)

    return delete_


def as_json(database, job, **options):
    with database.read() as tx:
        return json.loads(metrics.iterations_json(tx, job, **options))


@pytest.mark.parametrize(
    "options",
    [{}, {"after": 1500}, {"limit": 1030}, {"after": 1023, "limit": 2}, {"fields": ["epoch"]}, {"attempt": 1},
     {"fields": ["gradient_norm", "train_loss"]}, {"after": 10**9}],
    ids=str,
)  # fmt: skip
def test_the_parts_are_the_series(database, running, record, next_attempt, monkeypatch, open_series, options):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    monkeypatch.setattr(series, "TEXT_ITERATIONS_A_PART", 2048)
    record(running.attempt_id, 1, 3000)
    second = next_attempt(running)
    record(second.attempt_id, 1501, 5200, offset=0.5)
    expected = as_json(database, running.job, **{"limit": 100_000, **options})
    opened = open_series(running.job, **options)
    assert opened.following == expected["next"]
    assert list(opened.names) == list(expected["columns"])
    texts = {
        name: ",".join(part[name] for part in series.text_parts(database, opened)) for name in opened.names
    }
    assert {name: json.loads(f"[{text}]") for name, text in texts.items()} == expected["columns"]
    arrays = list(series.column_parts(database, opened))
    for name, values in expected["columns"].items():
        assert [value for array in arrays for value in array[name].tolist()] == values
        assert {array[name].dtype for array in arrays} <= {np.dtype(np.int64), np.dtype(np.float32)}
    assert all(len(array["iteration"]) <= 1024 for array in arrays)


def test_nothing_recorded_has_no_part(database, running, open_series):
    opened = open_series(running.job)
    assert list(series.column_parts(database, opened)) == list(series.text_parts(database, opened)) == []
    assert list(series.iteration_parts(database, running.job)) == []


def test_what_is_recorded_meanwhile_is_no_part_of_it(database, running, record, monkeypatch):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    record(running.attempt_id, 1, 1500)
    parts = series.iteration_parts(database, running.job)
    found = [next(parts)]
    record(running.attempt_id, 1, 4000)
    found += parts
    assert np.concatenate([part["iteration"] for part in found]).tolist() == list(range(1, 1501))


def test_an_attempt_that_begins_meanwhile_changes_nothing(
    database, running, record, next_attempt, monkeypatch
):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    record(running.attempt_id, 1, 2500)
    parts = series.iteration_parts(database, running.job)
    found = [next(parts)]
    record(next_attempt(running).attempt_id, 1, 2500, offset=0.5)
    found += parts
    assert np.concatenate([part["train_loss"] for part in found]).tolist() == list(range(1, 2501))


def test_a_job_deleted_meanwhile_is_an_error(database, running, record, delete, monkeypatch, open_series):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    monkeypatch.setattr(series, "TEXT_ITERATIONS_A_PART", 1024)
    record(running.attempt_id, 1, 2500)
    opened = open_series(running.job, fields=["epoch"])
    readers = [series.column_parts(database, opened), series.text_parts(database, opened)]
    for reader in readers:
        next(reader)
    delete(running)
    for reader in readers:
        with pytest.raises(NotFoundError) as raised:
            list(reader)
        assert raised.value.code == "job_not_found"


def test_no_transaction_lasts_between_parts(database, running, record, monkeypatch):
    monkeypatch.setattr(series, "ITERATIONS_A_PART", 1024)
    record(running.attempt_id, 1, 2500)
    parts = series.iteration_parts(database, running.job)
    next(parts)
    assert database._engine.pool.checkedout() == 0
    parts.close()


def test_epochs_in_parts(database, running, record_epochs, monkeypatch):
    monkeypatch.setattr(series, "EPOCHS_A_PART", 3)
    record_epochs(running, *range(1, 9), best=(1, 5))
    record_epochs(running, 9, 10, validation_loss=0.5)
    for options in ({}, {"after": 4}, {"limit": 4}, {"after": 2, "limit": 3}, {"limit": 10}, {"after": 10}):
        with database.read() as tx:
            opened = series.open_epochs(tx, running.job, **options)
            expected, following = metrics.epochs(tx, running.job, **options)
        parts = list(series.epoch_parts(database, opened))
        assert [row for part in parts for row in part] == expected, options
        assert opened.following == following
        assert all(len(part) <= 3 for part in parts)
    with database.read() as tx:
        opened = series.open_epochs(tx, running.job)
    assert series.metric_names(database, opened) == ["train_loss", "validation_loss"]


def test_epochs_stay_what_they_were(database, running, record_epochs, next_attempt, delete, monkeypatch):
    monkeypatch.setattr(series, "EPOCHS_A_PART", 2)
    record_epochs(running, *range(1, 6), best=(2,))
    with database.read() as tx:
        opened = series.open_epochs(tx, running.job)
        expected, _ = metrics.epochs(tx, running.job)
    parts = series.epoch_parts(database, opened)
    found = next(parts)
    second = next_attempt(running)
    record_epochs(second, *range(2, 9), best=(8,))
    found += next(parts)
    assert found == expected[:4]
    delete(second)
    with pytest.raises(NotFoundError, match="deleted"):
        list(parts)


def test_an_unknown_attempt_is_refused(database, running):
    with database.read() as tx:
        for open_ in (series.open_iterations, series.open_epochs):
            with pytest.raises(NotFoundError) as raised:
                open_(tx, running.job, attempt=7)
            assert raised.value.code == "attempt_not_found"
        assert series.open_epochs(tx, running.job, attempt=1).last == 0


WRITE = """
import resource, sys
from epochd.store import files, jobs, series
from epochd.store.database import Database

url, job_id, kind = sys.argv[1:]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
db = Database(url)
with db.read() as tx:
    opened = series.open_iterations(tx, jobs.get(tx, job_id))
chunks = files.of_iterations(kind, db, opened)
size = sum(len(next(chunks)) for _ in range(3))
before = peak()
size += sum(map(len, chunks))
print(opened.curve[-1].last, size, peak() - before)
"""


@pytest.mark.torture
def test_a_million_iterations_take_no_memory(database, database_url, running, record):
    n = 1_000_000
    record(running.attempt_id, 1, n)
    for kind, least in (("csv", 40), ("ndjson", 100), ("parquet", 10)):
        command = [sys.executable, "-c", WRITE, database_url, running.job.id, kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        last, size, grown = map(int, done.stdout.split())
        assert last == n
        assert size > least * n, kind
        assert grown < 40_000_000, kind
