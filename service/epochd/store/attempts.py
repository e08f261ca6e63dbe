"""The attempts: one execution of a job by one worker, fenced by its id and kept alive by renewing its lease.

An attempt ends once: whoever sets ``finished_at`` (the worker, or the reaper when the lease ran out) owns its
end, and from then on nothing more is recorded for it.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, select, update

from epochd.errors import AttemptLostError, NotFoundError
from epochd.store.database import Transaction
from epochd.store.tables import attempts, jobs
from epochd.store.types import now, seconds_from_now


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt as it is stored: the columns of ``tables.attempts``, in their order."""

    id: int
    job_number: int
    number: int
    worker: str
    device: str
    claimed_at: datetime
    lease_expires_at: datetime
    finished_at: datetime | None
    outcome: str | None
    first_iteration: int
    last_iteration: int
    error: dict[str, Any] | None
    restored: dict[str, Any] | None
    writes: int
    archive: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, and how many iterations it had recorded."""

    outcome: str
    iterations: int


@dataclass(frozen=True, slots=True)
class Control:
    """What the holder of an attempt is asked to do; ``cancel_keep`` is None while nobody wants it to end.

    A cancellation goes before a ``pause``. ``amendments`` is how many there are: those beyond the ones known so far
    are to be fetched (``amendments.of_job``).
    """

    cancel_keep: str | None
    cancel_grace_seconds: float
    pause: bool = False
    amendments: int = 0
    lease_expired: bool = False


def renew(tx: Transaction, attempt_id: int, lease_seconds: float) -> Control:
    """Extend the lease, counted from now by the database's clock, and learn what is asked.

    A lease that ran out may still be renewed as long as nobody has ended the attempt. In a transaction that
    records something, call this first: it keeps the reaper out until the end of the transaction.

    Raises:
        AttemptLostError: when the attempt has ended: write nothing more.

    """
    statement = update(attempts).where(attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    job_number = tx.execute(
        statement.values(lease_expires_at=seconds_from_now(lease_seconds)).returning(attempts.c.job_number)
    ).scalar_one_or_none()
    if job_number is None:
        raise lost(attempt_id)
    return _control(tx, job_number)


def control(tx: Transaction, attempt_id: int) -> Control:
    """Learn what is asked of the holder of an attempt, without renewing its lease.

    Raises:
        AttemptLostError: when the attempt has ended.

    """
    living = (attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    query = select(attempts.c.job_number, attempts.c.lease_expires_at < now()).where(*living)
    found = tx.execute(query).one_or_none()
    if found is None:
        raise lost(attempt_id)
    job_number, expired_by_now = found
    return replace(_control(tx, job_number), lease_expired=bool(expired_by_now))


def begin(
    tx: Transaction, attempt_id: int, first_iteration: int, restored: dict[str, Any] | None = None
) -> None:
    """Note with which iteration the attempt begins, and what it restored, before it records anything.

    Until it records that iteration it replaces nothing: the curve is still that of the attempts before it.

    Raises:
        AttemptLostError: when the attempt has ended.

    """
    statement = update(attempts).where(attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    position = {"first_iteration": first_iteration, "last_iteration": first_iteration - 1}
    if tx.execute(statement.values(**position, restored=restored)).rowcount == 0:
        raise lost(attempt_id)


def first_time(tx: Transaction, attempt_id: int, write: int) -> bool:
    """Tell whether the recorder's write of this number (1, 2, 3, …) is still to be made, and count it as made.

    False when it was committed before: whoever lost the connection during a commit cannot know, and asks by writing
    again, under the same number. Call it after ``renew``, in the same transaction.
    """
    statement = update(attempts).where(attempts.c.id == attempt_id, attempts.c.writes < write)
    return tx.execute(statement.values(writes=write)).rowcount == 1


def finish(
    tx: Transaction,
    attempt_id: int,
    *,
    outcome: str,
    error: dict[str, Any] | None = None,
    only_expired: bool = False,
) -> Ended | None:
    """End the attempt; None when it has ended already. The caller has ``counters.count`` count it, at the very end.

    The reaper passes ``only_expired``: then it is None, too, when the lease was renewed in the meantime.
    """
    statement = update(attempts).where(attempts.c.id == attempt_id, attempts.c.finished_at.is_(None))
    if only_expired:
        statement = statement.where(attempts.c.lease_expires_at < now())
    values = {"finished_at": now(), "outcome": outcome, "error": error}
    iterations = tx.execute(statement.values(**values).returning(iterations_made())).scalar_one_or_none()
    return None if iterations is None else Ended(outcome, iterations)


def iterations_made() -> ColumnElement[int]:
    """Tell in SQL how many iterations an attempt has recorded."""
    made = attempts.c.last_iteration - attempts.c.first_iteration + 1
    return case((made > 0, made), else_=0)


def expired(tx: Transaction, *, prove_writable: bool = False) -> list[AttemptRow]:
    """Find the attempts whose lease ran out, the longest dead first.

    With ``prove_writable`` their rows are written, unchanged: a database that only reads, on a full disk or under
    somebody's lock, fails instead of telling of attempts that nobody could renew.
    """
    query = select(*attempts.c).where(attempts.c.finished_at.is_(None), attempts.c.lease_expires_at < now())
    if prove_writable:
        touch = update(attempts).where(attempts.c.finished_at.is_(None), attempts.c.lease_expires_at < now())
        tx.execute(touch.values(worker=attempts.c.worker))
    return [AttemptRow(*row) for row in tx.execute(query.order_by(attempts.c.lease_expires_at))]


def running(tx: Transaction) -> list[tuple[str, AttemptRow]]:
    """Read the attempts that nobody has ended, each with its job's id, the oldest first."""
    query = select(jobs.c.id, *attempts.c).join(jobs, jobs.c.number == attempts.c.job_number)
    found = tx.execute(query.where(attempts.c.finished_at.is_(None)).order_by(attempts.c.id))
    return [(str(one[0]), AttemptRow(*one[1:])) for one in found]


def of_job(tx: Transaction, job_number: int) -> list[AttemptRow]:
    """Read the attempts of a job, the first one first."""
    query = select(*attempts.c).where(attempts.c.job_number == job_number)
    return [AttemptRow(*row) for row in tx.execute(query.order_by(attempts.c.number))]


def get(tx: Transaction, attempt_id: int) -> AttemptRow:
    """Read an attempt.

    Raises:
        NotFoundError: code ``attempt_not_found``.

    """
    row = tx.execute(select(*attempts.c).where(attempts.c.id == attempt_id)).one_or_none()
    if row is None:
        raise NotFoundError("there is no such attempt", code="attempt_not_found")
    return AttemptRow(*row)


def lost(attempt_id: int) -> AttemptLostError:
    """Make the error of a writer whose attempt has ended."""
    return AttemptLostError(f"attempt {attempt_id} has ended or belongs to another worker")


def _control(tx: Transaction, job_number: int) -> Control:
    asked = (
        jobs.c.cancel_keep,
        func.coalesce(jobs.c.cancel_grace_seconds, 0.0),
        jobs.c.pause_requested_at.is_not(None),
        jobs.c.amendments,
    )
    keep, grace, pause, amendments = tx.execute(select(*asked).where(jobs.c.number == job_number)).one()
    return Control(keep, grace, bool(pause), amendments)
