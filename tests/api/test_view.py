"""Rows as callers see them: what a job shows while a new attempt begins, and while its record lags behind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from epochd.jobs import view
from epochd.store import jobs


@pytest.fixture
def row(create, trainer, database):
    """A running job that has recorded 10 iterations."""
    job_id = create()["id"]
    trainer.start().iterate(10)
    with database.read() as tx:
        return jobs.get(tx, job_id)


def ago(seconds):
    return datetime.now(UTC) - timedelta(seconds=seconds)


def lag(row, **changes):
    return view.to_job(replace(row, **changes)).progress.metrics_lag_seconds


def test_the_lag_grows_while_nothing_is_recorded(row):
    assert lag(row) >= 0.25
    assert lag(row, recorded_at=ago(60)) >= 60.25
    assert lag(row, recorded_at=ago(3600)) >= 3600.25


def test_clocks_that_differ_make_no_negative_lag(row):
    assert lag(row, recorded_at=ago(-60)) == 0.25


def test_only_what_runs_lags(row):
    for status in ("queued", "paused", "succeeded", "failed", "cancelled"):
        assert lag(row, status=status, recorded_at=ago(60)) == 0.0
    assert lag(row, recorded_at=None) == 0.0
    assert lag(row, recorded_at=None, progress=None) is None
    assert lag(row, status="queued", recorded_at=None, progress=None) is None


def test_an_attempt_that_begins_hides_nothing_of_the_one_before(api, row, trainer):
    trainer.lose()
    trainer.start()
    job = api.get(f"/v1/jobs/{row.id}").json()
    assert (job["status"], job["attempt"]) == ("running", 2)
    assert (job["progress"]["iteration"], job["progress"]["fraction"]) == (10, 0.25)
    assert job["progress"]["metrics_lag_seconds"] == 0.0


def test_more_than_all_is_all(row):
    shorter = {**row.plan, "total_iterations": 5}
    assert view.to_job(replace(row, plan=shorter)).progress.fraction == 1.0


def test_a_job_that_was_never_begun_has_trained_nothing(create):
    assert create()["progress"] == {
        "epoch": 0,
        "epochs": 4,
        "iteration": 0,
        "total_iterations": 40,
        "fraction": 0.0,
        "samples_per_second": None,
        "elapsed_seconds": None,
        "eta_seconds": None,
        "metrics_lag_seconds": None,
        "micro_batch_size": None,
        "peak_memory_bytes": None,
    }
