import signal
import subprocess
import sys
import threading

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from epochd.errors import ConfigurationError, DatabaseNotMigratedError, DatabaseUnavailableError
from epochd.store import jobs
from epochd.store.database import Database


def names(database):
    with database.read() as tx:
        return [job.name for job in jobs.page(tx, limit=200)[0]]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "mysql://host/db",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+asyncpg://h/d",
        "postgresql://h:x/d",
    ],
)
def test_a_url_of_another_kind_is_a_configuration_error(url):
    with pytest.raises(ConfigurationError) as caught:
        Database(url)
    assert "sqlite:////path" in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgres_connects(postgres_server, scheme, open_database):
    database = open_database(postgres_server.url("migrated").replace("postgresql", scheme, 1))
    database.ping()
    assert database.dialect == "postgresql"


def test_a_postgres_database_without_an_encoding_gives_text(postgres_server, open_database):
    # What initdb makes in the C locale.
    postgres_server._execute(
        "CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    database = open_database(postgres_server.url("ascii"))
    with database.read() as tx:
        assert tx.execute(text("SELECT 'Zürich'")).scalar_one() == "Zürich"
    database.close()
    postgres_server.drop("ascii")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:hunter2@127.0.0.1:1/db",
        "postgresql://somebody@127.0.0.1:1/db?password=hunter2",
        "postgresql://somebody:hunter2@nowhere.invalid/db",
    ],
)
def test_an_unreachable_server_is_named_without_its_password(url, open_database):
    database = open_database(url)
    with pytest.raises(DatabaseUnavailableError) as caught:
        database.ping()
    assert "somebody" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in database.safe_url


def test_a_file_that_cannot_be_opened(tmp_path, open_database):
    with pytest.raises(DatabaseUnavailableError, match="unable to open"):
        open_database(f"sqlite:///{tmp_path}/none/x.db").ping()


def test_a_file_that_is_no_database(tmp_path, open_database):
    (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseUnavailableError, match="not a database"):
        open_database(f"sqlite:///{tmp_path}/x.db").ping()


def test_a_missing_table_means_not_migrated(empty_database_url, open_database):
    database = open_database(empty_database_url)
    database.ping()
    with pytest.raises(DatabaseNotMigratedError, match="epochd db upgrade"), database.read() as tx:
        jobs.get(tx, "job_x")


def test_a_mistake_in_a_statement_stays_what_it_is(database):
    with pytest.raises(SQLAlchemyError), database.read() as tx:
        tx.execute(text("SELEC 1"))


def test_a_block_that_raises_leaves_nothing(database, make_job):
    make_job(name="before")

    def fail():
        with database.write() as tx:
            tx.execute(text("UPDATE jobs SET name = 'changed'"))
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert names(database) == ["before"]


def test_a_reader_sees_one_moment(database, make_job):
    make_job(name="first")
    with database.read() as tx:
        before = jobs.page(tx, limit=10)[0]
        make_job(name="second")
        assert jobs.page(tx, limit=10)[0] == before
    assert names(database) == ["second", "first"]


def test_writers_in_many_threads_wait_for_each_other(database, make_job):
    job = make_job()

    def count():
        for _ in range(25):
            with database.write() as tx:
                seen = jobs.get(tx, job.id, lock=True).priority
                jobs.transition(tx, job.number, expected=("queued",), status="queued", priority=seen + 1)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as tx:
        assert jobs.get(tx, job.id).priority == 200


def test_a_lock_that_is_never_given_up_makes_the_database_unavailable(database, database_url, make_job):
    job = make_job()
    impatient = Database(database_url, busy_seconds=0.2)
    with database.write() as tx:
        jobs.get(tx, job.id, lock=True)
        with pytest.raises(DatabaseUnavailableError), impatient.write() as other:
            jobs.get(other, job.id, lock=True)
    with impatient.write() as other:
        assert jobs.get(other, job.id, lock=True).id == job.id
    impatient.close()


def test_postgres_gone_in_the_middle_of_a_block(postgres_server, open_database):
    name = postgres_server.create()
    database = open_database(postgres_server.url(name))

    def interrupted():
        with database.write() as tx:
            pid = tx.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            tx.execute(text("UPDATE jobs SET name = 'never'"))

    with pytest.raises(DatabaseUnavailableError):
        interrupted()
    database.ping()
    database.close()
    postgres_server.drop(name)


def test_idle_connections_survive_a_restart_of_postgres(postgres_server, open_database):
    name = postgres_server.create()
    database = open_database(postgres_server.url(name))
    database.ping()
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as admin:
        [count] = admin.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchone()
    assert count == 1
    database.ping()
    database.close()
    postgres_server.drop(name)


WRITER = """
import sys, time
from sqlalchemy import text
from epochd.store.database import Database
with Database(sys.argv[1]).write() as tx:
    tx.execute(text("UPDATE jobs SET name = 'half'"))
    moment = "2026-01-01T00:00:00.000Z"
    columns = "id, host, pid, devices, slots, started_at, last_seen_at"
    tx.execute(text(f"INSERT INTO workers ({columns}) VALUES ('w', 'h', 1, '[]', 1, '{moment}', '{moment}')"))
    print("written", flush=True)
    time.sleep(600)
"""


def test_a_writer_killed_within_its_transaction_leaves_no_trace(database, database_url, make_job):
    make_job(name="whole")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, database_url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "written\n"
    assert names(database) == ["whole"]  # readers do not wait for writers
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert names(database) == ["whole"]
    make_job(name="next")
    assert names(database) == ["next", "whole"]
    with database.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM workers")).scalar_one() == 0


def test_sqlite_is_set_up_to_keep_what_it_confirmed(tmp_path, open_database):
    with open_database(f"sqlite:///{tmp_path}/x.db").read() as tx:
        pragmas = ["journal_mode", "synchronous", "foreign_keys", "busy_timeout"]
        found = [tx.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in pragmas]
    assert found == ["wal", 2, 1, 10_000]
