"""The events of a job: one durable sequence, numbered 1, 2, 3, … without a gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, insert, select, update

from epochd.errors import NotFoundError
from epochd.store.cursors import MAX_NUMBER
from epochd.store.database import Transaction
from epochd.store.rows import dump, insert_many
from epochd.store.tables import events, jobs
from epochd.store.types import UtcTime, now


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as it is stored: the columns of ``tables.events``, in their order."""

    job_number: int
    seq: int
    type: str
    attempt: int
    iteration: int
    created_at: datetime
    data: dict[str, Any]


class NewEvent(NamedTuple):
    """An event to be added; ``iteration`` is the last one recorded when it happened.

    ``data`` is a dict, or a dataclass that reads as one. This is none itself, which would take longer to make: there
    may be a thousand a second.
    """

    type: str
    data: Any
    iteration: int


def append(tx: Transaction, job_number: int, type: str, data: Mapping[str, Any]) -> int:  # noqa: A002 - the wire's name
    """Add an event to the job's sequence and return its number.

    It carries the job's attempt and iteration as they are now in the transaction, so record those first.

    Raises:
        NotFoundError: code ``job_not_found``.

    """
    seq, attempt, iteration = _count(tx, job_number, 1)
    row = {"job_number": job_number, "seq": seq, "type": type, "attempt": attempt, "iteration": iteration}
    tx.execute(insert(events).values(**row, created_at=now(), data=dict(data)))
    return seq


def append_many(tx: Transaction, job_number: int, new: Sequence[NewEvent]) -> None:
    """Add events of the job's newest attempt to its sequence, in their order, at the cost of about one.

    Raises:
        NotFoundError: code ``job_not_found``.

    """
    if not new:
        return
    last, attempt, _ = _count(tx, job_number, len(new))
    moment = UtcTime().process_bind_param(tx.execute(select(now())).scalar_one(), tx.dialect)
    rows = [
        (job_number, seq, kind, attempt, iteration, moment, dump(data))
        for seq, (kind, data, iteration) in enumerate(new, last - len(new) + 1)
    ]
    insert_many(tx, events, rows)


def _count(tx: Transaction, job_number: int, count: int) -> tuple[int, int, int]:
    """Take the next ``count`` numbers; return the last of them, and the job's attempt and iteration.

    The counter in the job's row is locked until the commit: two writers get different numbers, in commit
    order.
    """
    counted = tx.execute(_COUNT, {"job": job_number, "count": count}).one_or_none()
    if counted is None:
        raise NotFoundError("the job has been deleted", code="job_not_found")
    last, attempt, iteration = counted
    return int(last), int(attempt), int(iteration)


_COUNT = (
    update(jobs)
    .where(jobs.c.number == bindparam("job"))
    .values(last_event=jobs.c.last_event + bindparam("count"), version=jobs.c.version + 1)
    .returning(jobs.c.last_event, jobs.c.attempt, jobs.c.iteration)
)


def after(
    tx: Transaction, job_number: int, seq: int, limit: int, types: Sequence[str] = ()
) -> list[EventRow]:
    """Read at most ``limit`` events that follow number ``seq``, ascending; of these types, by default of all."""
    query = select(*events.c).where(events.c.job_number == job_number, events.c.seq > min(seq, MAX_NUMBER))
    if types:
        query = query.where(events.c.type.in_(types))
    return [EventRow(*row) for row in tx.execute(query.order_by(events.c.seq).limit(limit))]
