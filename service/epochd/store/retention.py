"""Which iterations are to leave the database, and how they do."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, exists, func, select, update

from epochd.store.archive import ARTIFACT
from epochd.store.database import Transaction
from epochd.store.levels import LevelRow
from epochd.store.rows import upsert
from epochd.store.tables import artifacts, attempts, iteration_blocks, iteration_levels, jobs
from epochd.store.types import seconds_from_now

_RECORDED = attempts.c.last_iteration >= attempts.c.first_iteration
_PAGE = 500


def due(
    tx: Transaction, statuses: Sequence[str], *, seconds: float, after: int = 0, limit: int = _PAGE
) -> list[int]:
    """Find the first jobs beyond number ``after`` that ended so many seconds ago, and have iterations to be archived.

    These are also those that were retried since they were archived: what they recorded earlier is in a file that is
    none of their artifacts any more. By the time somebody comes to the last of them, more may have happened: ask
    ``is_due``.
    """
    query = select(jobs.c.number).where(jobs.c.number > after, *_is_due(statuses, seconds))
    return list(tx.execute(query.order_by(jobs.c.number).limit(limit)).scalars())


def is_due(tx: Transaction, job_number: int, statuses: Sequence[str], *, seconds: float) -> bool:
    """Tell whether ``due`` would find this job."""
    query = select(jobs.c.number).where(jobs.c.number == job_number, *_is_due(statuses, seconds))
    return tx.execute(query).one_or_none() is not None


def _is_due(statuses: Sequence[str], seconds: float) -> Sequence[ColumnElement[bool]]:
    listed = exists().where(artifacts.c.job_number == jobs.c.number, artifacts.c.name == ARTIFACT)
    mine = exists().where(attempts.c.job_number == jobs.c.number, _RECORDED)
    return (
        jobs.c.status.in_(statuses),
        jobs.c.finished_at <= seconds_from_now(-seconds),
        # By itself an inner condition sees no further than the one around it, and would ask of any job.
        mine.where(attempts.c.archive.is_(None) | ~listed.correlate(jobs)),
    )


def archive(tx: Transaction, attempt_ids: Sequence[int], path: str) -> None:
    """Have the iterations of these attempts be read from the file from now on."""
    tx.execute(update(attempts).where(attempts.c.id.in_(attempt_ids)).values(archive=path))


def referenced(tx: Transaction, job_id: str | None = None) -> set[str]:
    """Tell the files that hold iterations of any attempt, or of those of one job."""
    query = select(attempts.c.archive).where(attempts.c.archive.is_not(None)).distinct()
    if job_id is not None:
        query = query.join(jobs, jobs.c.number == attempts.c.job_number).where(jobs.c.id == job_id)
    return set(tx.execute(query).scalars())


def archived_blocks(tx: Transaction, job_number: int | None = None) -> list[int]:
    """Find the attempts, of one job or of all, whose blocks are in the database as well as in a file."""
    block = exists().where(iteration_blocks.c.attempt_id == attempts.c.id)
    query = select(attempts.c.id).where(attempts.c.archive.is_not(None), block)
    if job_number is not None:
        query = query.where(attempts.c.job_number == job_number)
    return list(tx.execute(query).scalars())


def remove_blocks(tx: Transaction, attempt_id: int, blocks: int) -> bool:
    """Remove the first so many blocks of an archived attempt; False when none is left."""
    c = iteration_blocks.c
    archived = select(attempts.c.id).where(attempts.c.id == attempt_id, attempts.c.archive.is_not(None))
    first = select(func.min(c.block)).where(c.attempt_id == archived.scalar_subquery())
    begin = tx.execute(first).scalar_one()
    if begin is None:
        return False
    tx.execute(delete(iteration_blocks).where(c.attempt_id == attempt_id, c.block < begin + blocks))
    return True


def stored_levels(tx: Transaction, attempt_id: int) -> int:
    """Tell how many rows of the finest reduced level an attempt has."""
    c = iteration_levels.c
    query = select(func.count()).select_from(iteration_levels).where(c.attempt_id == attempt_id, c.level == 0)
    return tx.execute(query).scalar_one()


def store_levels(
    tx: Transaction, attempt_id: int, iterations_per_epoch: int, rows: Sequence[LevelRow]
) -> None:
    """Store rows of reduced levels that the recorder did not."""
    upsert(
        tx, iteration_levels, [{"attempt_id": attempt_id, **row.as_row(iterations_per_epoch)} for row in rows]
    )
