"""A caller has a job give its device back for a while, and go on where it stopped."""

from typing import Any

from epochd.errors import ConflictError
from epochd.jobs.lifecycle import is_done, move
from epochd.store import events, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now


def pause(db: Database, job_id: str) -> JobRow:
    """Pause a job: a queued one at once, one that runs when its checkpoint is saved and its process gone.

    Asking again changes nothing. Raises ``NotFoundError``, and ``ConflictError`` when the job is done (``job_done``) or
    about to be cancelled (``cancel_requested``).
    """
    with db.write() as tx:
        # Locked: it must not be claimed, or end, between two statements.
        row = jobs.get(tx, job_id, lock=True)
        _refuse_done(row, "paused")
        if row.cancel_requested_at is not None:
            message = (
                f"{job_id} is about to be cancelled, which cannot be taken back; retry it once it is done."
            )
            raise ConflictError(message, code="cancel_requested")
        if row.status == "queued":
            to_paused(tx, row)
        elif row.status == "running" and row.pause_requested_at is None:
            jobs.request_pause(tx, job_id)
        return jobs.get(tx, job_id)


def resume(db: Database, job_id: str) -> JobRow:
    """Queue a paused job again, or withdraw a pause that has not happened yet.

    Nothing changes for a job that is neither: the request may have been sent twice. Raises ``NotFoundError``, and
    ``ConflictError`` when the job is done (``job_done``).
    """
    with db.write() as tx:
        row = jobs.get(tx, job_id, lock=True)
        _refuse_done(row, "resumed")
        if row.status == "paused":
            to_queued(tx, row)
        elif row.pause_requested_at is not None:
            jobs.withdraw_pause(tx, job_id)
        return jobs.get(tx, job_id)


def to_paused(tx: Transaction, row: JobRow) -> None:
    """Move a queued job, or one whose attempt has just ended, to ``paused``; the caller holds its row."""
    source = move("running" if row.status == "running" else "queued", "paused")
    jobs.transition(tx, row.number, **source, worker=None, device=None, pause_requested_at=None)
    events.append(tx, row.number, "job.paused", {**_position(row), "attempt": row.attempt})


def to_queued(tx: Transaction, row: JobRow) -> None:
    """Queue a paused job whose row the caller holds, to be claimed at once."""
    jobs.transition(tx, row.number, **move("paused", "queued"), available_at=now())
    events.append(tx, row.number, "job.resumed", _position(row))


def _position(row: JobRow) -> dict[str, Any]:
    return {"epoch": row.epoch, "iteration": row.shown_iteration}


def _refuse_done(row: JobRow, what: str) -> None:
    if is_done(row.status):
        message = f"{row.id} is {row.status}; only a job that is not done can be {what}."
        raise ConflictError(message, code="job_done")
