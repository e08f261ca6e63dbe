"""The workers: who can train, and when they were last seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select, update

from epochd.store.database import Transaction
from epochd.store.rows import upsert
from epochd.store.tables import workers
from epochd.store.types import now, seconds_from_now

ALIVE_SECONDS = 20.0
"""A worker says that it lives every 5 s: one that was not seen for so long is gone, or hangs."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker as it is stored: the columns of ``tables.workers``, in their order."""

    id: str
    host: str
    pid: int
    devices: list[Any]
    models: list[str] | None
    memory: dict[str, dict[str, int]] | None
    slots: int
    started_at: datetime
    last_seen_at: datetime


def register(  # noqa: PLR0913 - each is a column
    tx: Transaction,
    *,
    id: str,  # noqa: A002 - the column's name
    host: str,
    pid: int,
    devices: Sequence[Any],
    slots: int,
    memory: Mapping[str, Mapping[str, int]] | None = None,
    models: Sequence[str] = (),
) -> None:
    """Make a worker known, as just started.

    ``memory`` has of each device the bytes that are ``used`` and in ``total``; ``models`` names the operator's models
    that the worker has.
    """
    moment = tx.execute(select(now())).scalar_one()
    row = {"id": id, "host": host, "pid": pid, "devices": list(devices), "memory": memory, "slots": slots}
    row["models"] = list(models)
    upsert(tx, workers, [{**row, "started_at": moment, "last_seen_at": moment}])


def seen(tx: Transaction, worker_id: str, memory: Mapping[str, Mapping[str, int]] | None = None) -> bool:
    """Note that the worker lives, and the memory of its devices; False when it has to register (again)."""
    statement = update(workers).where(workers.c.id == worker_id)
    return tx.execute(statement.values(last_seen_at=now(), memory=memory)).rowcount == 1


def alive(tx: Transaction, within_seconds: float = ALIVE_SECONDS) -> list[WorkerRow]:
    """Find the workers seen within so many seconds, by the database's clock, the oldest first."""
    query = select(*workers.c).where(workers.c.last_seen_at >= seconds_from_now(-within_seconds))
    return [WorkerRow(*row) for row in tx.execute(query.order_by(workers.c.started_at, workers.c.id))]


def forget(tx: Transaction, unseen_seconds: float) -> None:
    """Forget the workers that nobody has seen for so long: killed ones never sign off."""
    tx.execute(delete(workers).where(workers.c.last_seen_at < seconds_from_now(-unseen_seconds)))


def remove(tx: Transaction, worker_id: str) -> None:
    """Forget a worker that stopped, or was gone for long; nothing happens when it is not known."""
    tx.execute(delete(workers).where(workers.c.id == worker_id))
