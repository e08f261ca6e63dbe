"""Counters and statistics, beside what ``tests/api/test_prometheus.py`` shows of them."""

import threading

import pytest

from epochd.store import attempts, counters, statistics
from epochd.store.database import Database


def test_counters_begin_with_nothing_and_grow(database):
    with database.write() as tx:
        assert counters.read(tx) == {}
        counters.add(tx, {"a": 2, "b": 0})
        counters.add(tx, {"a": 3, "c": 2**40})
        counters.add(tx, {})
        assert counters.read(tx) == {"a": 5, "c": 2**40}


def test_what_is_rolled_back_was_not_counted(database, running):
    with pytest.raises(ZeroDivisionError), database.write() as tx:
        counters.count(tx, attempts.finish(tx, running.attempt_id, outcome="lost"))
        raise ZeroDivisionError
    with database.read() as tx:
        assert counters.read(tx) == {}


def test_an_attempt_that_ended_is_counted_once(database, running, record):
    record(running.attempt_id, 1, 30)
    for expected in (attempts.Ended("lost", 30), None):
        with database.write() as tx:
            ended = attempts.finish(tx, running.attempt_id, outcome="lost")
            assert ended == expected
            if ended:
                counters.count(tx, ended)
    with database.read() as tx:
        assert counters.read(tx) == {"iterations": 30, "attempts_lost": 1}


def test_many_that_end_at_once_are_all_counted(database, database_url, make_job, claim_job, record):
    claims = []
    for _ in range(8):
        make_job()
        claims.append(claim_job())
        record(claims[-1].attempt_id, 1, 10)

    def finish(claim, outcome):
        own = Database(database_url)
        with own.write() as tx:
            counters.count(tx, attempts.finish(tx, claim.attempt_id, outcome=outcome))
        own.close()

    outcomes = ["lost", "succeeded"] * 4
    threads = [threading.Thread(target=finish, args=pair) for pair in zip(claims, outcomes, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert counters.read(tx) == {"iterations": 80, "attempts_lost": 4, "attempts_succeeded": 4}
        found = statistics.read(tx)
    assert (found.iterations, dict(found.attempts)) == (80, {"lost": 4, "succeeded": 4})


def test_jobs_are_counted_in_the_index_of_the_queue(database, make_job):
    """A row is a kilobyte of spec and more: with many jobs reading all of them would take seconds."""
    for _ in range(3):
        make_job()
    with database.read() as tx:
        assert statistics.read(tx).jobs == {"queued": 3}
        if database.dialect == "sqlite":
            for query in (
                "SELECT status, count(*) FROM jobs GROUP BY status",
                "SELECT count(*), min(available_at) FROM jobs WHERE status = 'queued' AND available_at <= 'x'",
            ):
                plan = [row[3] for row in tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]
                assert [line for line in plan if "COVERING INDEX ix_jobs_claim" in line] == plan
