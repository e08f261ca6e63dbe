"""What an exception of the database driver means in epochd's terms."""

import sqlite3

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from epochd.errors import (
    DatabaseNotMigratedError,
    DatabaseUnavailableError,
    DuplicateKeyError,
    EpochdError,
)

_NOT_MIGRATED = "the database's tables are not those of this version; run `epochd db upgrade`"
_SQLITE_UNIQUE = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}


def translate(error: SQLAlchemyError, database: str) -> EpochdError | None:
    """Say what a failure means; None when it is a mistake of the code.

    ``database`` names the database in the message; it must not hold a password.
    """
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError(f"all connections to the database {database} are busy; try again")
    if not isinstance(error, DBAPIError):
        return None
    cause = error.orig
    if isinstance(cause, psycopg.errors.UniqueViolation) or _sqlite_code(cause) in _SQLITE_UNIQUE:
        return DuplicateKeyError("the value is stored already")
    if _is_missing_table(cause):
        return DatabaseNotMigratedError(_NOT_MIGRATED)
    if error.connection_invalidated or _is_unavailable(cause):
        return DatabaseUnavailableError(f"the database {database} does not answer: {_reason(cause)}")
    return None


def _sqlite_code(cause: BaseException | None) -> int | None:
    return getattr(cause, "sqlite_errorcode", None)


def _is_missing_table(cause: BaseException | None) -> bool:
    if isinstance(cause, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return True
    return isinstance(cause, sqlite3.OperationalError) and str(cause).startswith(
        ("no such table", "no such column", "no such view")
    )


def _is_unavailable(cause: BaseException | None) -> bool:
    if isinstance(cause, sqlite3.DatabaseError):
        # SQLITE_ERROR is a mistake in a statement. The rest of these two classes is about the file: locked,
        # full, read-only, gone, not a database, torn.
        about_the_file = isinstance(cause, sqlite3.OperationalError) or type(cause) is sqlite3.DatabaseError
        return about_the_file and _sqlite_code(cause) != sqlite3.SQLITE_ERROR
    return isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)


def _reason(cause: BaseException | None) -> str:
    # psycopg lists each address that it tried on a line of its own; the first says enough.
    return str(cause).strip().split("\n", 1)[0]
