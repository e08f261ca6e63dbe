"""Column types that mean the same on both databases, and the database's clock.

Lease times and ages are compared with the database's own clock, never with that of the machine that asks:
workers and API processes may run on machines whose clocks disagree.
"""

from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import JSON, Dialect, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement, literal
from sqlalchemy.types import Float, TypeEngine

Json = JSON(none_as_null=True)
"""A JSON object or array; ``None`` is SQL's NULL. Written by orjson: a float that is not finite becomes null."""


class JsonText(TypeDecorator[Any]):
    """Any JSON value as text, a lone number, too; ``None`` is SQL's NULL.

    A column of the type JSON is numeric to SQLite, which would store a lone ``0.10`` as the number that it is.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - the same for both
        """Write a value."""
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        """Read a value."""
        return None if value is None else orjson.loads(value)


class UtcTime(TypeDecorator[datetime]):
    """A moment: always an aware ``datetime`` in UTC in Python.

    Postgres keeps TIMESTAMPTZ. SQLite keeps RFC 3339 text with milliseconds, ``2026-01-31T09:00:00.123Z``,
    all of one length, so that it sorts as text.

    Raises:
        ValueError: when a naive datetime is to be written.

    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take the database's own type where it has one."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Write a moment."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: moments are aware, in UTC")
        if dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Read a moment."""
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)  # type: ignore[no-any-return]  # psycopg gives a datetime
        return datetime.fromisoformat(value)


class seconds_from_now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, called like one
    """The moment so many seconds from now (negative: before now) by the database's clock."""

    type = UtcTime()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(literal(float(seconds), Float(53)))


class now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, called like one
    """Now, by the database's clock: the moment of the statement, not of the transaction's beginning."""

    type = UtcTime()
    inherit_cache = True


@compiles(now, "postgresql")
def _now_postgresql(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    # now() would be the beginning of the transaction, which may have waited for a lock since.
    return "clock_timestamp()"


@compiles(now, "sqlite")
def _now_sqlite(_element: now, _compiler: SQLCompiler, **_options: Any) -> str:
    return "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"


@compiles(seconds_from_now, "postgresql")
def _seconds_from_now_postgresql(element: seconds_from_now, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"


@compiles(seconds_from_now, "sqlite")
def _seconds_from_now_sqlite(element: seconds_from_now, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('%+.3f seconds', {seconds}))"
