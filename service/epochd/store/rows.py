"""Statements that both databases write in the same way under different names."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

from epochd.store.database import Transaction


def upsert(tx: Transaction, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, which all name the same columns; where the primary key is taken, overwrite these."""
    if not rows:
        return
    # The two constructs have the same methods, but no common class.
    insert = cast("Any", postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
    tx.execute(insert.on_conflict_do_update(index_elements=keys, set_=changed), [dict(row) for row in rows])
