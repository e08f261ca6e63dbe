"""Counters that outlive what they counted: deleting a job makes none of them smaller.

They are added to in the transaction that ends an attempt, so each attempt counts once, whatever is killed when. All who
end attempts want the same few rows: whoever locks several things locks the attempt first, then its job, and the
counters last of all, right before the commit, so that nobody waits for them while their holder waits for a job.
"""

from collections.abc import Mapping
from typing import Any, Final, cast

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from epochd.store.attempts import Ended
from epochd.store.database import Transaction
from epochd.store.tables import counters

ITERATIONS: Final = "iterations"
"""Recorded by the attempts that have ended; iterations that a later attempt repeated count again."""
_ATTEMPTS: Final = "attempts_"


def add(tx: Transaction, amounts: Mapping[str, int]) -> None:
    """Add to counters; those that are not there yet begin with 0."""
    # The two constructs have the same methods, but no common class.
    insert = cast("Any", postgresql if tx.dialect.name == "postgresql" else sqlite).insert(counters)
    # In one order, always: two that add at once wait for each other, and never both.
    rows = [{"name": name, "value": amount} for name, amount in sorted(amounts.items()) if amount]
    grown = {"value": counters.c.value + insert.excluded.value}
    if rows:
        tx.execute(insert.values(rows).on_conflict_do_update(index_elements=["name"], set_=grown))


def count(tx: Transaction, ended: Ended) -> None:
    """Count an attempt and its iterations: the last statement of the transaction that ends it."""
    add(tx, {ITERATIONS: ended.iterations, _ATTEMPTS + ended.outcome: 1})


def read(tx: Transaction) -> dict[str, int]:
    """Read all counters that were ever added to."""
    return {name: value for name, value in tx.execute(select(counters.c.name, counters.c.value))}  # noqa: C416


def by_outcome(found: Mapping[str, int]) -> dict[str, int]:
    """Pick from ``read()`` how many attempts have ended with each outcome."""
    return {
        name.removeprefix(_ATTEMPTS): value for name, value in found.items() if name.startswith(_ATTEMPTS)
    }
