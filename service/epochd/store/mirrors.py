"""How far each job has come in each tool that jobs are mirrored to, and who sends it there now.

A lease a job and target keeps two processes from sending the same: whoever holds it writes the position, and a position
that cannot be written (zero rows) means that somebody else took over.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union, update

from epochd.store.database import Transaction
from epochd.store.tables import attempts, jobs, mirrors
from epochd.store.types import now, seconds_from_now

LIVE = ("running", "paused")
RECENT_ATTEMPTS = 256
"""The newest attempts, whose jobs are looked at each time: a short one begins and ends between two looks."""
PAGE = 1000


@dataclass(frozen=True, slots=True)
class MirrorRow:
    """Where a job's mirror stands: how much was sent of the curve, of which ``attempt`` is the newest.

    ``run`` is what the target calls it; None: the target does not know it yet. ``moment`` is what was sent as the time
    of the newest iteration.
    """

    job_number: int
    target: str
    run: str | None
    restarted_after: int
    iteration: int = 0
    epoch: int = 0
    attempt: int = 0
    moment: float = 0.0
    version: int = -1


_COLUMNS = [mirrors.c[name] for name in MirrorRow.__dataclass_fields__]


def stale(tx: Transaction, target: str, holder: str) -> list[int]:
    """Find, among the live jobs and those of recent attempts, those of which the target has not all; oldest first.

    Those that never began are left out, unread, and those that somebody else sends just now.
    """
    live = select(jobs.c.number).where(jobs.c.status.in_(LIVE))
    newest = select(func.max(attempts.c.id)).scalar_subquery()
    recent = select(attempts.c.job_number).where(attempts.c.id > newest - RECENT_ATTEMPTS)
    looked_at = union(live, recent).subquery()
    query = _stale(target, holder).where(jobs.c.number.in_(select(looked_at.c[0])))
    return list(tx.execute(query).scalars())


def stale_after(tx: Transaction, target: str, holder: str, job_number: int, *, limit: int) -> list[int]:
    """Find them among all jobs beyond this number that are not live, however old: a page."""
    query = _stale(target, holder).where(jobs.c.number > job_number, jobs.c.status.not_in(LIVE))
    return list(tx.execute(query.limit(limit)).scalars())


def _stale(target: str, holder: str) -> Select[Any]:
    c, mine = mirrors.c, and_(mirrors.c.job_number == jobs.c.number, mirrors.c.target == target)
    return (
        select(jobs.c.number)
        .select_from(jobs.outerjoin(mirrors, mine))
        .where(jobs.c.attempt > jobs.c.restarted_after)
        .where(or_(c.version.is_(None), c.version != jobs.c.version))
        .where(_is_free(holder))
        .order_by(jobs.c.number)
    )


def is_sent_now(tx: Transaction, job_number: int, target: str, run: str) -> bool:
    """Tell whether somebody holds the lease on this run."""
    c = mirrors.c
    held = select(c.job_number).where(c.job_number == job_number, c.target == target, c.run == run)
    return (
        tx.execute(held.where(c.holder.is_not(None), c.lease_expires_at >= now())).one_or_none() is not None
    )


def take(
    tx: Transaction, job_number: int, target: str, holder: str, lease_seconds: float
) -> tuple[MirrorRow, bool] | None:
    """Take, or renew, the lease; None when somebody else has it, or the job is gone.

    The second value tells whether the holder had it before and nobody in between. A job that was retried from scratch
    since begins anew: without a run, and with nothing sent.

    Raises (at the latest at the end of ``Database.write()``):
        DuplicateKeyError: when somebody else took it first at this very moment.

    """
    restarted_after = tx.execute(_restarted_after(job_number)).scalar_one_or_none()
    if restarted_after is None:
        return None
    here = and_(mirrors.c.job_number == job_number, mirrors.c.target == target)
    found = tx.execute(select(mirrors.c.holder, *_COLUMNS).where(here).with_for_update()).one_or_none()
    new = MirrorRow(job_number, target, None, restarted_after)
    lease = {"holder": holder, "lease_expires_at": seconds_from_now(lease_seconds)}
    if found is None:
        tx.execute(mirrors.insert().values(**asdict(new), **lease))
        return new, False
    row = MirrorRow(*found[1:])
    is_same = row.restarted_after == restarted_after
    row = row if is_same else new
    won = tx.execute(update(mirrors).where(here, _is_free(holder)).values(**asdict(row), **lease)).rowcount
    return (row, is_same and found[0] == holder) if won else None


def store(tx: Transaction, row: MirrorRow, holder: str, lease_seconds: float) -> bool:
    """Write how far the mirror has come, and renew the lease; False when somebody else has taken it."""
    statement = update(mirrors).where(
        mirrors.c.job_number == row.job_number, mirrors.c.target == row.target, mirrors.c.holder == holder
    )
    position = {
        "run": row.run,
        "iteration": row.iteration,
        "epoch": row.epoch,
        "attempt": row.attempt,
        "moment": row.moment,
        "version": row.version,
        "lease_expires_at": seconds_from_now(lease_seconds),
    }
    return tx.execute(statement.values(**position)).rowcount == 1


def release(tx: Transaction, job_numbers: Sequence[int], target: str, holder: str) -> None:
    """Give leases back, so that the next one need not wait until they run out."""
    statement = update(mirrors).where(
        mirrors.c.job_number.in_(job_numbers), mirrors.c.target == target, mirrors.c.holder == holder
    )
    tx.execute(statement.values(holder=None, lease_expires_at=None))


def _is_free(holder: str) -> ColumnElement[bool]:
    c = mirrors.c
    return or_(c.holder.is_(None), c.holder == holder, c.lease_expires_at < now())


def _restarted_after(job_number: int) -> Select[Any]:
    # As a foreign key would hold it: a deletion waits, the recorder does not.
    query = select(jobs.c.restarted_after).where(jobs.c.number == job_number)
    return query.with_for_update(read=True, key_share=True)
