"""The amendments: changes to the training of a job that has begun, in the order in which they were asked for.

The API inserts them. The engine applies each at a definite iteration; the recorder notes which, so that an attempt
that resumes before it applies it there again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update

from epochd.store.database import Transaction
from epochd.store.tables import amendments, jobs
from epochd.store.types import now

Field = Literal["learning_rate", "epochs", "early_stopping"]
PARAMS: dict[str, str] = {"learning_rate": "optimizer.learning_rate"}
"""The path in the spec of each field that is not called like it."""


@dataclass(frozen=True, slots=True)
class AmendmentRow:
    """An amendment as it is stored: the columns of ``tables.amendments``, in their order.

    ``epoch`` and ``iteration`` are the newest completed ones when it took effect, None until then.
    """

    job_number: int
    number: int
    field: Field
    value: Any
    requested_at: datetime
    epoch: int | None
    iteration: int | None
    applied_at: datetime | None

    @property
    def changes(self) -> dict[str, Any]:
        """What an event tells of it: the dotted path in the spec, and the new value."""
        return {PARAMS.get(self.field, self.field): self.value}


def insert_many(tx: Transaction, job_number: int, after_number: int, new: Sequence[tuple[Field, Any]]) -> int:
    """Ask for amendments, numbered after ``after_number``; return the number of the last one.

    The caller holds the job's row, and knows by its ``amendments`` how many there are.
    """
    rows = [
        {"job_number": job_number, "number": number, "field": field, "value": value, "requested_at": now()}
        for number, (field, value) in enumerate(new, after_number + 1)
    ]
    for row in rows:
        tx.execute(insert(amendments).values(**row))
    if rows:
        counted = update(jobs).where(jobs.c.number == job_number)
        tx.execute(counted.values(amendments=after_number + len(rows)))
    return after_number + len(rows)


def of_job(tx: Transaction, job_number: int, after_number: int = 0) -> list[AmendmentRow]:
    """Read the amendments of a job beyond ``after_number``, in their order."""
    c = amendments.c
    query = select(*c).where(c.job_number == job_number, c.number > after_number).order_by(c.number)
    return [AmendmentRow(*row) for row in tx.execute(query)]


def applied(tx: Transaction, job_number: int, number: int, epoch: int, iteration: int) -> bool:
    """Note where an amendment took effect; False when that is known already, from an earlier attempt.

    Call it in a transaction that ``attempts.renew`` has fenced.
    """
    c = amendments.c
    statement = update(amendments).where(c.job_number == job_number, c.number == number)
    statement = statement.where(c.applied_at.is_(None))
    return tx.execute(statement.values(epoch=epoch, iteration=iteration, applied_at=now())).rowcount == 1


def remove(tx: Transaction, job_number: int) -> None:
    """Forget the amendments of a job that begins anew, with the amended spec."""
    tx.execute(delete(amendments).where(amendments.c.job_number == job_number))
