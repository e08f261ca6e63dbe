import threading

import psycopg
import pytest

from epochd.store import jobs, workers
from epochd.store.changes import ChangeFeed
from epochd.store.database import Database

SOON = 20
"""Seconds after which something that should have been heard of was not: long, and never waited out."""


@pytest.fixture
def feed(database):
    feed = ChangeFeed(database)
    assert feed.wait(SOON)  # the first call: whatever came before counts as new
    yield feed
    feed.close()


def test_quiet_while_nothing_is_committed(feed):
    assert not feed.wait(0.1)
    assert not feed.wait(0)


def test_a_commit_is_heard_of_once(feed, make_job):
    make_job()
    assert feed.wait(SOON)
    assert not feed.wait(0.1)
    make_job()
    make_job()
    assert feed.wait(SOON)
    heard = 1
    while feed.wait(0.3):  # Postgres may tell of the second one by itself, a moment later
        heard += 1
    assert heard <= 2


def test_a_commit_wakes_a_wait_under_way(feed, make_job):
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(feed.wait(SOON)))
    waiting.start()
    make_job()
    waiting.join()
    assert heard == [True]


def test_what_was_committed_is_there_when_it_is_heard_of(database, feed, make_job):
    for count in range(1, 6):
        threading.Thread(target=make_job).start()
        assert feed.wait(SOON)
        with database.read() as tx:
            assert len(jobs.page(tx, limit=10)[0]) == count


def test_reads_failures_and_claims_of_nothing_wake_nobody(database, feed):
    def fail():
        with database.write() as tx:
            workers.register(tx, id="w", host="h", pid=1, devices=[], slots=1)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with database.read() as tx:
        jobs.page(tx, limit=1)
    with database.write() as tx:
        assert jobs.claim(tx, worker="w", device="cpu", lease_seconds=1) is None
    assert not feed.wait(0.1)


def test_closing_ends_a_wait(feed):
    heard = []
    waiting = threading.Thread(target=lambda: heard.append(feed.wait(SOON)))
    waiting.start()
    feed.close()
    waiting.join()
    assert heard == [False]
    assert not feed.wait(0)


def test_closing_twice_or_unused_is_fine(database, feed):
    feed.close()
    feed.close()
    ChangeFeed(database).close()


def test_an_unreachable_database_is_waited_for(open_database):
    feed = ChangeFeed(open_database("postgresql://nobody@127.0.0.1:1/db"))
    assert not feed.wait(0.1)
    feed.close()


def test_a_lost_connection_is_made_again_and_counts_as_a_change(postgres_server):
    name = postgres_server.create()
    database = Database(postgres_server.url(name))
    feed = ChangeFeed(database)
    assert feed.wait(SOON)
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
        )
    assert feed.wait(SOON)
    assert not feed.wait(0.1)
    with database.write() as tx:
        workers.register(tx, id="w", host="h", pid=1, devices=[], slots=1)
    assert feed.wait(SOON)
    feed.close()
    database.close()
    postgres_server.drop(name)
