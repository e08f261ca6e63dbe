"""Statements that both databases write in the same way under different names, and many rows in a few of them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, cast

import orjson
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from epochd.store.database import Transaction

ROWS_A_STATEMENT = (128, 16, 4, 1)
"""How many rows a statement inserts into SQLite. So few sizes stay prepared, with any number of rows."""


def upsert(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, which all name the same columns; where the primary key is taken, overwrite these."""
    if not rows:
        return
    tx.execute(_upsert(tx.dialect.name, table, tuple(rows[0])), [dict(row) for row in rows])


def insert_many(
    tx: Transaction, table: Table, rows: Sequence[Sequence[Any]], *, overwrite: bool = False
) -> None:
    """Insert rows of many small values; with ``overwrite``, in place of those whose primary key is taken.

    Each row has a value for every column of the table, as ``epochd.store.types`` would write it: JSON and (on SQLite)
    moments as text. Several rows go into a statement: a driver that takes one row at a time takes Python's lock anew
    for each, and a training that shares the lock waits every time.
    """
    if not rows:
        return
    if tx.dialect.name == "postgresql":
        # One text; the driver would look at every value. A float's shortest form is read back exactly.
        tx.exec_driver_sql(_from_json(table, overwrite), (dump(rows),))
        return
    for size, groups in _grouped(rows):
        tx.exec_driver_sql(_from_values(table, overwrite, size), groups)


def dump(value: Any) -> str:
    """Write a value of a column of the type ``Json``."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()


@lru_cache
def _upsert(dialect: str, table: Table, columns: tuple[str, ...]) -> Any:
    # The two constructs have the same methods, but no common class.
    insert = cast("Any", postgresql if dialect == "postgresql" else sqlite).insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in columns if name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=changed)


def _grouped(rows: Sequence[Sequence[Any]]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Divide rows among statements: how many a statement takes, and the parameters of each time it is run."""
    done = 0
    for size in ROWS_A_STATEMENT:
        times = (len(rows) - done) // size
        if times:
            starts = range(done, done + times * size, size)
            yield size, [tuple(chain.from_iterable(rows[at : at + size])) for at in starts]
            done += times * size


@lru_cache
def _from_values(table: Table, overwrite: bool, rows: int) -> str:  # noqa: FBT001 - private
    row = f"({', '.join('?' * len(table.c))})"
    return f"{_into(table)} VALUES {', '.join([row] * rows)}{_on_conflict(table, overwrite)}"


@lru_cache
def _from_json(table: Table, overwrite: bool) -> str:  # noqa: FBT001 - private
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    values = ", ".join(f"(value->>{i})::{column.type.compile(dialect)}" for i, column in enumerate(table.c))
    return (
        f"{_into(table)} SELECT {values} FROM json_array_elements(%s::json){_on_conflict(table, overwrite)}"  # noqa: S608
    )


def _into(table: Table) -> str:
    return f"INSERT INTO {table.name} ({', '.join(column.name for column in table.c)})"


def _on_conflict(table: Table, overwrite: bool) -> str:  # noqa: FBT001 - private
    if not overwrite:
        return ""
    keys = [column.name for column in table.primary_key]
    changed = ", ".join(f"{c.name} = excluded.{c.name}" for c in table.c if c.name not in keys)
    return f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}"
