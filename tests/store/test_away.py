"""A database server that is frozen, or gone and back, fails what was asked of it, and never makes it hang."""

import threading

import psutil
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from epochd.errors import DatabaseUnavailableError
from epochd.store import attempts, availability, events, jobs
from epochd.store.availability import Availability, SilentServerError, StillAwayError, TimedConnection
from epochd.store.changes import ChangeFeed
from epochd.store.database import Database
from epochd.store.jobs import NewJob


class Freezer:
    """Suspends a server with all its processes; the kernel goes on to accept connections for it."""

    def __init__(self, server):
        self._postmaster = psutil.Process(server.pid)
        self._frozen = []

    def freeze(self):
        # The postmaster first: it must not start further processes meanwhile.
        self._postmaster.suspend()
        self._frozen = [self._postmaster, *self._postmaster.children(recursive=True)]
        for process in self._frozen[1:]:
            process.suspend()

    def thaw(self):
        for process in self._frozen:
            process.resume()
        self._frozen = []


@pytest.fixture
def server(own_postgres_server):
    return own_postgres_server


@pytest.fixture
def freezer(server):
    freezer = Freezer(server)
    yield freezer
    freezer.thaw()


@pytest.fixture
def impatient(server):
    """A database that waits 0.2 s for locks, and so 3.2 s for a sign of life."""
    database = Database(server.url("migrated"), busy_seconds=0.2)
    yield database
    database.close()


def unavailable(call):
    with pytest.raises(DatabaseUnavailableError) as caught:
        call()
    return caught.value


def new_job(id_):
    return NewJob(id_, None, {}, {}, [], {}, 0, None, "d")


def test_a_frozen_server_fails_every_kind_of_use_and_is_used_again_once_it_goes_on(
    server, impatient, freezer
):
    used = Database(server.url("migrated"), busy_seconds=0.2)
    changes = ChangeFeed(used)
    assert changes.wait(10)
    hold_several_connections(used)
    with used.write() as tx:
        jobs.insert(tx, new_job("job_before"))
    assert changes.wait(10)

    freezer.freeze()
    # A connection from the pool, a new one, and one outside the pool.
    assert "database" in unavailable(used.ping).message
    unavailable(impatient.ping)
    with pytest.raises(psycopg.OperationalError):
        used.dedicated_connection()
    assert not changes.wait(0.2)
    # While one tries whether it is back, the others are told at once, as many as may come.
    assert StillAwayError in {
        type(error.__cause__) for error in in_threads([lambda: unavailable(used.ping)] * 12)
    }

    freezer.thaw()
    # Nobody is still trying by now, so the very next one succeeds.
    used.ping()
    impatient.ping()
    with impatient.write() as tx:
        jobs.insert(tx, new_job("job_after"))
    assert changes.wait(10)
    with used.read() as tx:
        assert [job.id for job in jobs.page(tx, limit=9)[0]] == ["job_after", "job_before"]
    changes.close()
    used.close()


def hold_several_connections(database, count=4):
    """Leave so many idle connections in the pool."""
    barrier = threading.Barrier(count)

    def hold():
        with database.read() as tx:
            tx.execute(text("SELECT 1"))
            barrier.wait(30)

    in_threads([hold] * count)


def in_threads(calls):
    results = []
    threads = [threading.Thread(target=lambda call=call: results.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_server_that_freezes_within_a_transaction(server, impatient, freezer):
    with impatient.write() as tx:
        jobs.insert(tx, new_job("job_1"))
        claim = jobs.claim(tx, worker="w", device="cpu", lease_seconds=30)

    def frozen_statement():
        with impatient.write() as tx:
            jobs.get(tx, "job_1", lock=True)
            freezer.freeze()
            jobs.get(tx, "job_1")

    error = unavailable(frozen_statement)
    assert isinstance(error.__cause__.orig, SilentServerError)
    freezer.thaw()

    def write():
        with impatient.write() as tx:
            attempts.renew(tx, claim.attempt_id, 30)
            if attempts.first_time(tx, claim.attempt_id, 1):
                events.append(tx, claim.job.number, "epoch.completed", {})

    def frozen_commit():
        with impatient.write() as tx:
            attempts.renew(tx, claim.attempt_id, 30)
            assert attempts.first_time(tx, claim.attempt_id, 1)
            events.append(tx, claim.job.number, "epoch.completed", {})
            freezer.freeze()

    unavailable(frozen_commit)
    freezer.thaw()
    # Nobody knows whether the commit was carried out: written again under its number, it is there once.
    write()
    write()
    with impatient.read() as tx:
        assert [event.seq for event in events.after(tx, claim.job.number, 0, 9)] == [1]


def test_a_server_that_was_restarted_costs_nobody_a_request(server):
    database = Database(server.url("migrated"))
    hold_several_connections(database)
    server.interrupt()
    server.go_on()
    assert in_threads([database.ping] * 8) == [None] * 8

    server.interrupt()
    for error in in_threads([lambda: unavailable(database.ping)] * 8):
        assert "does not answer" in error.message
    server.go_on()
    assert in_threads([database.ping] * 8) == [None] * 8
    database.close()


def test_a_migration_may_take_its_time(postgres_server):
    def silence(**options):
        database = Database(postgres_server.url("migrated"), **options)
        with database.read() as tx:
            seconds = tx.connection.dbapi_connection.silence_seconds
        database.close()
        return seconds

    assert [silence(), silence(busy_seconds=2), silence(patient=True)] == [8, 5, None]


def test_a_statement_that_the_server_works_on_for_too_long(postgres_server):
    # Not in the template that tests copy: the server works on, and nobody can copy what is in use.
    with TimedConnection.connect(postgres_server.url("postgres")) as connection:
        connection.silence_seconds = 0.3
        connection.execute("SELECT 1")
        with pytest.raises(SilentServerError, match=r"0.3 s"):
            connection.execute("SELECT pg_sleep(30)")
        assert connection.closed


class TestAvailability:
    def broken(self, available):
        with pytest.raises(OperationalError), available.attempt():
            raise OperationalError("SELECT 1", {}, Exception("gone"))

    def test_all_may_try_while_nothing_is_wrong(self):
        available = Availability()
        with available.attempt(), available.attempt():
            pass

    @pytest.mark.parametrize("how", ["broken attempt", "lost"])
    def test_one_may_try_while_it_is_away(self, how):
        available = Availability()
        available.lost() if how == "lost" else self.broken(available)
        with available.attempt():
            [refused] = in_threads([lambda: refusal(available)])
            assert isinstance(refused, StillAwayError)
        with available.attempt(), available.attempt():
            pass  # it was back

    def test_who_waits_for_the_probe_goes_on_when_it_succeeds(self, monkeypatch):
        monkeypatch.setattr(availability, "PROBE_PATIENCE_SECONDS", 30)
        available, results = Availability(), []
        available.lost()
        with available.attempt():
            threads = [threading.Thread(target=lambda: results.append(refusal(available))) for _ in range(5)]
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        assert results == [None] * 5

    def test_after_a_probe_that_failed_the_next_one_may_try(self):
        available = Availability()
        self.broken(available)
        self.broken(available)
        with available.attempt():
            pass

    def test_a_busy_pool_does_not_mean_away(self):
        available = Availability()
        with pytest.raises(PoolTimeoutError), available.attempt():
            raise PoolTimeoutError
        with available.attempt(), available.attempt():
            pass


def refusal(available):
    try:
        with available.attempt():
            return None
    except StillAwayError as error:
        return error
