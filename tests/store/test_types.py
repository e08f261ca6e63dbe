from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import StatementError

from epochd.contract.base import rfc3339
from epochd.store import amendments, jobs
from epochd.store.types import UtcTime, now, seconds_from_now

MOMENTS = [
    datetime(2026, 1, 31, 9, 0, 0, 123000, tzinfo=UTC),
    datetime(2026, 1, 31, 9, 0, 0, 0, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 1000, tzinfo=UTC),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_moment_comes_back_as_it_was_written(database, running, moment):
    elsewhere = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with database.write() as tx:
        jobs.record_progress(tx, running.job.number, attempt=1, finished_at=elsewhere)
    with database.read() as tx:
        read = jobs.get(tx, running.job.id).finished_at
    assert read == moment
    assert read.utcoffset() == timedelta(0)
    assert datetime.fromisoformat(rfc3339(read)) == moment


def test_a_moment_without_a_zone_is_refused(database, running):
    with database.write() as tx, pytest.raises(StatementError, match="no time zone"):
        jobs.record_progress(tx, running.job.number, attempt=1, finished_at=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


def test_sqlite_text_sorts_as_the_moments_do():
    write = UtcTime().bind_processor(sqlite.dialect())
    moments = sorted(
        MOMENTS + [moment + timedelta(microseconds=1000 * n) for moment in MOMENTS for n in (1, 10, 999)]
    )
    texts = [write(moment) for moment in moments]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {len("2026-01-31T09:00:00.123Z")}


def test_the_clock_never_runs_backwards_and_agrees_with_written_moments(database):
    with database.read() as tx:
        ticks = [tx.execute(select(now())).scalar_one() for _ in range(300)]
    assert ticks == sorted(ticks)
    assert len(set(ticks)) > 1
    assert abs(ticks[-1] - datetime.now(UTC)) < timedelta(seconds=60)
    assert all(tick.utcoffset() == timedelta(0) for tick in ticks)


@pytest.mark.parametrize("seconds", [-86400, -0.25, 0.25, 1e-9, 30, 90061.5])
def test_seconds_from_now_are_counted_by_the_same_clock(database, seconds):
    with database.read() as tx:
        before, then, after = (
            tx.execute(select(moment)).scalar_one() for moment in (now(), seconds_from_now(seconds), now())
        )
    assert before <= then - timedelta(seconds=seconds) + timedelta(milliseconds=1)
    assert then - timedelta(seconds=seconds) <= after + timedelta(milliseconds=1)


def test_moments_are_compared_in_the_database(database):
    query = select(
        seconds_from_now(-0.01) < now(), now() < seconds_from_now(0.01), seconds_from_now(-10) > now()
    )
    with database.read() as tx:
        assert [bool(value) for value in tx.execute(query).one()] == [True, True, False]


@pytest.mark.parametrize("value", [0.1, 1e-7, 7, 2**53 + 1, True, "0.10", [1.5], {"a": None}, None])
def test_any_json_value_comes_back_as_it_was_written(database, running, value):
    with database.write() as tx:
        amendments.insert_many(tx, running.job.number, 0, [("epochs", value)])
    with database.read() as tx:
        [read] = amendments.of_job(tx, running.job.number)
    assert (read.value, type(read.value)) == (value, type(value))
