import subprocess
import sys

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from epochd.errors import ConfigurationError, DatabaseNotMigratedError, DatabaseUnavailableError
from epochd.store import artifacts, attempts, counters, curve, events, jobs, migrate
from epochd.store.tables import metadata


def relations(database):
    with database.read() as tx:
        found = inspect(tx)
        return set(found.get_table_names()), set(found.get_view_names())


def reads_indexes(database, kind, table):
    # Alembic cannot read the index with a descending column back from SQLite; the next test has it.
    return database.dialect == "postgresql" or kind != "index" or table.name != "ix_jobs_claim"


def test_migrations_and_tables_agree(database):
    with database.read() as tx:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_object": lambda thing, _name, kind, *_: reads_indexes(database, kind, thing),
        }
        assert compare_metadata(MigrationContext.configure(tx, opts=options), metadata) == []


def test_constraints_and_indexes_are_named_alike(database):
    with database.read() as tx:
        found = inspect(tx)
        for table in metadata.sorted_tables:
            named = {
                index["name"]
                for index in found.get_indexes(table.name)
                if not index.get("duplicates_constraint")
            }
            assert named == {index.name for index in table.indexes}, table.name
            # SQLite does not name the key that it numbers by itself.
            assert found.get_pk_constraint(table.name)["name"] in (table.primary_key.name, None)
            for key in found.get_foreign_keys(table.name):
                assert key["name"] in {constraint.name for constraint in table.foreign_key_constraints}
                assert key["options"]["ondelete"] == "CASCADE"


def test_an_empty_database_is_migrated_and_then_current(empty_database_url, open_database):
    database = open_database(empty_database_url)
    with pytest.raises(DatabaseNotMigratedError, match="epochd db upgrade"):
        migrate.check_current(database)
    migrate.upgrade(empty_database_url)
    migrate.check_current(database)
    assert relations(database) == ({*metadata.tables, "alembic_version"}, {"iteration_metrics"})


def test_upgrading_again_changes_nothing(database, database_url, running_job):
    before = relations(database)
    migrate.upgrade(database_url)
    assert relations(database) == before
    with database.read() as tx:
        assert jobs.get(tx, running_job).id == running_job


@pytest.fixture
def running_job(database):
    new = jobs.NewJob("job_a", None, {}, {}, [], {}, 0, None, "d")
    with database.write() as tx:
        return jobs.insert(tx, new).id


UPGRADE = """
import sys
from epochd.store import migrate
print("ready", flush=True)
sys.stdin.readline()
migrate.upgrade(sys.argv[1])
"""


def test_processes_that_upgrade_at_once_do_it_once(empty_database_url, open_database):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, empty_database_url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    migrate.check_current(open_database(empty_database_url))


def test_a_migration_that_fails_leaves_no_trace(empty_database_url, open_database, monkeypatch, tmp_path):
    versions = tmp_path / "broken" / "versions"
    versions.mkdir(parents=True)
    good = migrate.migrations_directory()
    for name in ("env.py", "versions/0001_first_schema.py"):
        (versions.parent / name).write_text((good / name).read_text())
    (versions / "0002_broken.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = '0002', '0001'\n"
        "def upgrade():\n"
        "    op.execute('CREATE TABLE half (x INTEGER)')\n"
        "    op.execute('INSERT INTO none VALUES (1)')\n"
    )
    monkeypatch.setattr(migrate, "migrations_directory", lambda: versions.parent)
    with pytest.raises(DatabaseNotMigratedError):
        migrate.upgrade(empty_database_url)
    monkeypatch.undo()
    database = open_database(empty_database_url)
    assert relations(database) == (set(), set())
    migrate.upgrade(empty_database_url)
    migrate.check_current(database)


FIRST_SCHEMA_ROWS = (
    """INSERT INTO jobs (id, status, spec, plan, advice, tags, priority, request_digest, attempt, epoch,
                         iteration, progress, created_at, available_at, started_at)
       VALUES ('job_a', 'running', '{"epochs": 2}', '{"iterations_per_epoch": 10}', '[]', '{"a": "b"}', 3, 'd', 1,
               1, 10, '{"elapsed_seconds": 1.5}', :moment, :moment, :moment)""",
    """INSERT INTO attempts (job_number, number, worker, device, claimed_at, lease_expires_at, last_iteration)
       VALUES (1, 1, 'w', 'cpu', :moment, :moment, 10)""",
    """INSERT INTO attempts (job_number, number, worker, device, claimed_at, lease_expires_at, last_iteration,
                             finished_at, outcome, first_iteration)
       VALUES (1, 2, 'w', 'cpu', :moment, :moment, 30, :moment, 'lost', 1),
              (1, 3, 'w', 'cpu', :moment, :moment, 50, :moment, 'failed', 21),
              (1, 4, 'w', 'cpu', :moment, :moment, 0, :moment, 'failed', 1)""",
    """INSERT INTO iteration_blocks VALUES (1, 0, 1, 1, 10, '[0.5]', '[0.1]', '[1.0]', '[100.0]', '{}')""",
    """INSERT INTO epoch_metrics VALUES (1, 1, 10, '{"train_loss": 0.5}', 0.1, 1.0, true)""",
    """INSERT INTO events VALUES (1, 1, 'job.queued', 0, 0, :moment, '{"priority": 3}')""",
    """INSERT INTO artifacts VALUES (1, 'model.json', 'p', 'application/json', 2, 'ab', :moment)""",
)


def upgrade_to(revision, database):
    with database.write() as tx:
        config = migrate._config()
        config.attributes["connection"] = tx
        command.upgrade(config, revision)


def test_a_database_of_the_first_schema_keeps_its_rows(empty_database_url, open_database):
    database = open_database(empty_database_url)
    upgrade_to("0001", database)
    with database.write() as tx:
        for statement in FIRST_SCHEMA_ROWS:
            tx.execute(text(statement), {"moment": "2026-01-31T09:00:00.123Z"})
    with pytest.raises(DatabaseNotMigratedError, match="older"):
        migrate.check_current(database)
    migrate.upgrade(empty_database_url)
    migrate.check_current(database)
    with database.write() as tx:
        job = jobs.get(tx, "job_a")
        assert (job.status, job.epoch, job.iteration, job.tags) == ("running", 1, 10, {"a": "b"})
        assert job.created_at.isoformat(timespec="milliseconds") == "2026-01-31T09:00:00.123+00:00"
        assert (job.pause_requested_at, job.initial_spec, job.recorded_at) == (None, None, None)
        assert (job.amendments, job.retried_after, job.restarted_after) == (0, 0, 0)
        assert (job.has_begun, job.shown_iteration) == (True, 10)
        assert counters.read(tx) == {"iterations": 60, "attempts_lost": 1, "attempts_failed": 2}
        tx.execute(text("DELETE FROM attempts WHERE number > 1"))
        [attempt] = attempts.of_job(tx, 1)
        assert (attempt.restored, attempt.writes, attempt.last_iteration) == (None, 0, 10)
        assert curve.recorded(tx, 1) == curve.Recorded(((1, 1, 10),), 1)
        assert [event.type for event in events.after(tx, 1, 0, 9)] == ["job.queued"]
        assert [one.name for one in artifacts.of_job(tx, 1)] == ["model.json"]
        # It goes on under this version: its attempt is lost, and another one is made.
        assert attempts.finish(tx, attempt.id, outcome="lost", only_expired=True)
        assert jobs.transition(tx, 1, expected=("running",), status="queued")
        claim = jobs.claim(tx, worker="w", device="cpu", lease_seconds=30)
        assert (claim.attempt, claim.recorded.iteration, claim.amendments) == (2, 10, ())


def test_counters_are_not_made_of_nothing(database):
    with database.read() as tx:
        assert counters.read(tx) == {}


def test_no_migration_needs_a_newer_sqlite():
    """Before 3.39 it knew HAVING with GROUP BY only."""
    for path in (migrate.migrations_directory() / "versions").glob("*.py"):
        for statement in path.read_text().split('"""'):
            assert "HAVING" not in statement or "GROUP BY" in statement, path.name


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)
def test_tables_that_others_use_are_not_waited_for_without_end(
    empty_database_url, open_database, monkeypatch
):
    database = open_database(empty_database_url)
    upgrade_to("0001", database)
    monkeypatch.setattr(migrate, "_TABLE_SECONDS", 0.2)
    with database.read() as tx:
        tx.execute(text("SELECT count(*) FROM jobs"))
        with pytest.raises(DatabaseUnavailableError, match="holds its tables; end what is using them"):
            migrate.upgrade(empty_database_url)
    with pytest.raises(DatabaseNotMigratedError, match="older"):
        migrate.check_current(database)
    migrate.upgrade(empty_database_url)
    migrate.check_current(database)


def test_a_schema_from_the_future_is_refused(database, database_url):
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseNotMigratedError, match="newer"):
        migrate.check_current(database)
    with pytest.raises(DatabaseNotMigratedError, match="newer"):
        migrate.upgrade(database_url)


def test_what_cannot_be_reached_or_understood():
    with pytest.raises(DatabaseUnavailableError):
        migrate.upgrade("postgresql://nobody@127.0.0.1:1/db")
    with pytest.raises(ConfigurationError):
        migrate.upgrade("mysql://host/db")


def test_a_path_with_odd_characters(tmp_path, open_database):
    directory = tmp_path / "100% größer & so"
    directory.mkdir()
    migrate.upgrade(f"sqlite:///{directory}/epochd.db")
    assert (directory / "epochd.db").is_file()
    migrate.check_current(open_database(f"sqlite:///{directory}/epochd.db"))


def test_blocks_are_compressed_where_the_server_can(postgres_server, open_database):
    name = postgres_server.create()
    database = open_database(postgres_server.url(name))
    query = """
        SELECT attname, attcompression FROM pg_attribute
        WHERE attrelid = 'iteration_blocks'::regclass AND attcompression <> ''
    """
    with database.read() as tx:
        found = {name: method for name, method in tx.execute(text(query))}  # noqa: C416 - rows are no pairs to dict()
    assert found in (
        {},
        dict.fromkeys(("train_loss", "learning_rate", "gradient_norm", "samples_per_second"), "l"),
    )
    database.close()
    postgres_server.drop(name)
