"""Bringing the schema to the version that the code works with, by the migrations in ``migrations/``."""

import sqlite3
from functools import cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from epochd.errors import DatabaseNotMigratedError, DatabaseUnavailableError
from epochd.store.database import Database, Transaction

_PACKAGE = Path(__file__).resolve().parents[1]
_TABLE_SECONDS = 10.0
_LOCK = 0x65706F636864  # "epochd": the Postgres advisory lock of those who migrate


def upgrade(url: str) -> None:
    """Bring the database to the newest schema; nothing happens when it has it. Several may do this at once.

    All migrations that are due happen in one transaction, on both databases: one that fails leaves no trace.

    Raises:
        ConfigurationError: when the URL names no database that epochd works with.
        DatabaseUnavailableError: when the database does not answer, or its tables are in use for too long.
        DatabaseNotMigratedError: when the schema is newer than this version of epochd.

    """
    db = Database(url, patient=True)
    try:
        with db.write() as tx:
            if db.dialect == "postgresql":
                _wait_for_others(tx)
            config = _config()
            config.attributes["connection"] = tx
            command.upgrade(config, "head")
    except CommandError as error:
        raise _newer() from error
    except DatabaseUnavailableError as error:
        if not _is_locked(error):
            raise
        message = f"the database {db.safe_url} could not be migrated, and is as it was: somebody else holds its tables"
        raise DatabaseUnavailableError(f"{message}; end what is using them, then try again") from error
    finally:
        db.close()


def _wait_for_others(tx: Transaction) -> None:
    """Wait for whoever migrates, however long that takes; but not so for a table.

    Everybody who comes to a table later waits behind whoever waits to change it.
    """
    tx.execute(text("SET LOCAL lock_timeout = 0"))
    tx.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    tx.execute(text(f"SET LOCAL lock_timeout = {int(_TABLE_SECONDS * 1000)}"))


def _is_locked(error: DatabaseUnavailableError) -> bool:
    reason = getattr(error.__cause__, "orig", None)
    return isinstance(reason, psycopg.errors.LockNotAvailable) or (
        getattr(reason, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
    )


def check_current(db: Database) -> None:
    """Make sure that the schema is the one that the code works with.

    Raises:
        DatabaseUnavailableError: when the database does not answer.
        DatabaseNotMigratedError: when the schema is older or newer.

    """
    with db.read() as tx:
        revision = MigrationContext.configure(tx).get_current_revision()
    if revision == head():
        return
    if revision is None or revision in _revisions():
        raise DatabaseNotMigratedError(
            "the database's schema is older than this version; run `epochd db upgrade`"
        )
    raise _newer()


@cache
def head() -> str:
    """Give the newest revision that this version of epochd knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None, "there is at least one migration"
    return newest


@cache
def _revisions() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def migrations_directory() -> Path:
    """Find the migrations: packed into the wheel, or beside ``service/`` in a checkout."""
    packed = _PACKAGE / "_migrations"
    return packed if packed.is_dir() else _PACKAGE.parents[1] / "migrations"


def _config() -> Config:
    config = Config()
    # A percent sign would begin an interpolation.
    config.set_main_option("script_location", str(migrations_directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _newer() -> DatabaseNotMigratedError:
    return DatabaseNotMigratedError(
        "the database's schema is newer than this version of epochd; install the newer one"
    )
