"""The connection to the database: SQLite or Postgres, told apart by the URL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from epochd.errors import ConfigurationError, DatabaseUnavailableError, EpochdError
from epochd.store.availability import PING_SECONDS, Availability, StillAwayError, TimedConnection
from epochd.store.failures import translate

Transaction = Connection
"""An open transaction; what every function of the store takes first."""

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_POOLS: dict[str, dict[str, Any]] = {
    # SQLite's connections cost a file handle each; the API's thread pool has 40 threads.
    "sqlite": {"pool_size": 40, "max_overflow": 0, "pool_timeout": 10},
    "postgresql": {"pool_size": 10, "max_overflow": 10, "pool_timeout": 5, "pool_pre_ping": True},
}
_BUSY_SECONDS = {"sqlite": 10.0, "postgresql": 5.0}
_SILENCE_BEYOND_BUSY_SECONDS = 3.0
_POSTGRES_ARGUMENTS = {
    "connect_timeout": 3,
    "application_name": "epochd",
    # A database made in the C locale is SQL_ASCII, and would answer in bytes.
    "client_encoding": "utf8",
    # A server whose machine is gone is noticed within seconds instead of the kernel's quarter of an hour.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_SQLITE_SESSION = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 67108864",
)


class Database:
    """A pool of connections; may be used from many threads, but not across a fork: a child makes its own.

    Nothing is connected before it is needed. ``busy_seconds`` is how long a statement waits for somebody else's lock
    before the database counts as unavailable (by default 10 s on SQLite, which has one writer at a time, and 5 s on
    Postgres). A Postgres server that says nothing at all for 3 s longer is unavailable, too, unless ``patient``: then a
    statement may take as long as it likes. ``archives`` is the directory in which iterations are that were moved out of
    the database; without it nobody can read these. ``url`` is as it was given, password and all.

    Raises:
        ConfigurationError: when the URL names no database that epochd works with.

    """

    def __init__(
        self,
        url: str,
        *,
        archives: Path | None = None,
        busy_seconds: float | None = None,
        patient: bool = False,
    ) -> None:
        self.url = url
        self._url = parse_url(url)
        self.dialect: Literal["sqlite", "postgresql"] = (
            "sqlite" if self._url.get_backend_name() == "sqlite" else "postgresql"
        )
        self._read = {**_READ[self.dialect], _ARCHIVES: archives}
        self._write = {**_WRITE[self.dialect], _ARCHIVES: archives}
        busy_seconds = _BUSY_SECONDS[self.dialect] if busy_seconds is None else busy_seconds
        self._availability = Availability()
        self._arguments = _connect_arguments(self.dialect, busy_seconds)
        self._engine = _make_engine(self._url, self.dialect, self._arguments)
        if self.dialect == "postgresql":
            silence_seconds = None if patient else busy_seconds + _SILENCE_BEYOND_BUSY_SECONDS
            _watch_postgres(self._engine, busy_seconds, silence_seconds)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a transaction that only reads, all of it from one snapshot.

        Raises:
            DatabaseUnavailableError: when the database does not answer, then or later in the block.
            DatabaseNotMigratedError: when a table or column is missing.

        """
        with (
            self._translated(),
            self._connect() as tx,
            tx.execution_options(**self._read).begin(),
        ):
            yield tx

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """Open a transaction that writes; it commits at the end of the block unless that raises.

        Everybody who waits in a ``ChangeFeed`` hears of the commit.

        Raises:
            DatabaseUnavailableError: when the database does not answer, then or later in the block.
            DatabaseNotMigratedError: when a table or column is missing.
            DuplicateKeyError: when a unique value is stored already.

        """
        with (
            self._translated(),
            self._connect() as tx,
            tx.execution_options(**self._write).begin(),
        ):
            yield tx
            if self.dialect == "postgresql":
                tx.execute(_NOTIFY)

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            DatabaseUnavailableError: when there is none.

        """
        with self.read() as tx:
            tx.execute(text("SELECT 1"))

    def dedicated_connection(self) -> Any:
        """Open a connection of the driver's own kind, outside the pool; whoever asks for it closes it.

        Raises the driver's errors.
        """
        dialect = self._engine.dialect
        arguments, options = dialect.create_connect_args(self._url)
        options = {**options, **self._arguments}
        if self.dialect == "sqlite":
            return dialect.loaded_dbapi.connect(*arguments, **options)
        connection = TimedConnection.connect(*arguments, **options)
        connection.silence_seconds = PING_SECONDS
        return connection

    def close(self) -> None:
        """Close all connections that nobody uses; the rest when they are given back."""
        self._engine.dispose()

    @property
    def safe_url(self) -> str:
        """The URL without its password and parameters, for messages and logs."""
        return safe_url(self._url)

    def _connect(self) -> Connection:
        if self.dialect == "sqlite":
            return self._engine.connect()
        with self._availability.attempt():
            return self._engine.connect()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except EpochdError:
            raise
        except StillAwayError as error:
            raise DatabaseUnavailableError(f"the database {self.safe_url} still does not answer") from error
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                self._availability.lost()
            translated = translate(error, self.safe_url)
            if translated is None:
                raise
            raise translated from error


_ARCHIVES = "epochd_archives"


def archives(tx: Transaction) -> Path:
    """Tell the directory in which the archived iterations are.

    Raises:
        ConfigurationError: when the database was opened without one.

    """
    directory: Path | None = tx.get_execution_options().get(_ARCHIVES)
    if directory is None:
        raise ConfigurationError("archived iterations cannot be read: no directory of artifacts is known")
    return directory


# SQLite: whoever will write takes the write lock at once, since a read lock cannot be upgraded under load.
_BEGIN = "epochd_begin"
_READ: dict[str, dict[str, Any]] = {
    "sqlite": {_BEGIN: "BEGIN"},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}
_WRITE: dict[str, dict[str, Any]] = {"sqlite": {_BEGIN: "BEGIN IMMEDIATE"}, "postgresql": {}}

# Only a transaction that wrote something has a transaction id: a claim that found no job wakes nobody.
_NOTIFY = text("SELECT pg_notify('epochd', '') WHERE pg_current_xact_id_if_assigned() IS NOT NULL")


def parse_url(url: str) -> URL:
    """Read a database URL; ``postgres://`` and ``postgresql://`` mean psycopg 3.

    Raises:
        ConfigurationError: when it names no database that epochd works with.

    """
    try:
        parsed = make_url(url)
        driver = _DRIVERS[parsed.drivername]
    except (ArgumentError, KeyError, ValueError):
        raise ConfigurationError(
            "the database URL must look like sqlite:////path/to/file.db or postgresql://user@host:5432/name"
        ) from None
    if driver == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "the database URL names an in-memory SQLite database, which API and workers cannot share; "
            "name a file: sqlite:////path/to/file.db"
        )
    return parsed.set(drivername=driver)


def safe_url(url: URL) -> str:
    """Write a URL without its password and parameters."""
    return (
        url.set(query={})
        .render_as_string(hide_password=True)
        .replace("postgresql+psycopg://", "postgresql://")
    )


def _connect_arguments(dialect: str, busy_seconds: float) -> dict[str, Any]:
    return (
        _POSTGRES_ARGUMENTS if dialect == "postgresql" else {"isolation_level": None, "timeout": busy_seconds}
    )


def _make_engine(url: URL, dialect: str, connect_arguments: dict[str, Any]) -> Engine:
    if dialect == "sqlite" and sqlite3.sqlite_version_info < (3, 35):
        raise ConfigurationError(f"SQLite {sqlite3.sqlite_version} is too old; epochd needs 3.35 (RETURNING)")
    engine = create_engine(
        url,
        connect_args=connect_arguments,
        json_serializer=_dump_json,
        json_deserializer=orjson.loads,
        hide_parameters=True,
        **_POOLS[dialect],
    )
    if dialect == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _dump_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for statement in _SQLITE_SESSION:
        connection.execute(statement).fetchall()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def _watch_postgres(engine: Engine, busy_seconds: float, silence_seconds: float | None) -> None:
    """Make the engine's connections give up on locks and on a silent server."""

    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> TimedConnection:
        connection = TimedConnection.connect(*arguments, **options)
        connection.silence_seconds = PING_SECONDS
        return connection

    def check_out(connection: TimedConnection, _record: Any, _proxy: Any) -> None:
        connection.silence_seconds = silence_seconds

    def check_in(connection: TimedConnection | None, _record: Any) -> None:
        if connection is not None:  # the next thing that it is used for is the pool's ping
            connection.silence_seconds = PING_SECONDS

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect", partial(_prepare_postgres, lock_seconds=busy_seconds))
    event.listen(engine, "checkout", check_out)
    event.listen(engine, "checkin", check_in)


def _prepare_postgres(connection: Any, _record: Any, *, lock_seconds: float) -> None:
    connection.autocommit = True
    connection.execute(f"SET lock_timeout = {int(lock_seconds * 1000)}")
    # A suspended process must not hold a job's row forever.
    connection.execute("SET idle_in_transaction_session_timeout = '20s'")
    connection.autocommit = False
