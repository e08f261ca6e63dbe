"""A caller ends a job before its time."""

from typing import Any

from epochd.contract.job import Keep
from epochd.errors import ConflictError
from epochd.jobs.lifecycle import move
from epochd.store import events, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now


def cancel(db: Database, job_id: str, *, keep: Keep, grace_seconds: float) -> JobRow:
    """Ask for the end of a job; what is queued ends at once, what runs when its process is gone.

    Asking again changes ``keep`` and the grace. Raises ``NotFoundError``, and ``ConflictError`` when the job had
    already succeeded or failed.
    """
    with db.write() as tx:
        # Locked: a job moves in both directions, queued and running, and must not slip through between two statements.
        row = jobs.get(tx, job_id, lock=True)
        if not (_cancel_queued(tx, row) or jobs.request_cancel(tx, job_id, keep, grace_seconds)):
            _refuse_unless_cancelled(row)
        return jobs.get(tx, job_id)


def _cancel_queued(tx: Transaction, row: JobRow) -> bool:
    cancelled = jobs.transition(
        tx,
        row.number,
        **move("queued", "cancelled"),
        stop_reason="cancelled",
        cancel_requested_at=now(),
        finished_at=now(),
    )
    if cancelled:
        nothing: dict[str, Any] = {"selected_checkpoint": None, "error": None, "metrics": {}}
        events.append(tx, row.number, "job.cancelled", {"stop_reason": "cancelled", **nothing})
    return cancelled


def _refuse_unless_cancelled(row: JobRow) -> None:
    if row.status != "cancelled":
        message = f"{row.id} is {row.status}; only a job that is queued or running can be cancelled."
        raise ConflictError(message, code="job_done")
