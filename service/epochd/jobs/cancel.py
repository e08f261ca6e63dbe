"""A caller ends a job before its time."""

from epochd.contract.job import Keep
from epochd.errors import ConflictError
from epochd.jobs.lifecycle import move
from epochd.store import events, jobs
from epochd.store.curve import recorded
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now


def cancel(db: Database, job_id: str, *, keep: Keep, grace_seconds: float) -> JobRow:
    """Ask for the end of a job.

    What runs ends when its process is gone. What is queued or paused ends at once, unless it has trained and its
    weights are to be kept: then it is queued, and a worker brings them out of its newest checkpoint. Asking again
    changes ``keep`` and the grace; ``nothing`` ends such a job at once.

    Raises ``NotFoundError``, and ``ConflictError`` when the job had already succeeded or failed.
    """
    with db.write() as tx:
        # Locked: a job moves in both directions, queued and running, and must not slip through between two statements.
        row = jobs.get(tx, job_id, lock=True)
        if row.status in {"queued", "paused"}:
            cancel_idle(tx, row, keep, grace_seconds)
        elif not jobs.request_cancel(tx, job_id, keep, grace_seconds):
            _refuse_unless_cancelled(row)
        return jobs.get(tx, job_id)


def cancel_idle(tx: Transaction, row: JobRow, keep: str, grace_seconds: float) -> None:
    """Cancel a job that nobody runs and whose row the caller holds, or have its weights brought out first."""
    if has_weights(tx, row, keep):
        _hand_over(tx, row, keep, grace_seconds)
    else:
        _end(tx, row, keep, grace_seconds)


def has_weights(tx: Transaction, row: JobRow, keep: str | None) -> bool:
    """Tell whether a cancelled job leaves something behind that its caller wants to keep."""
    return keep in {"best", "last"} and recorded(tx, row.number).iteration > 0


def _hand_over(tx: Transaction, row: JobRow, keep: str, grace_seconds: float) -> None:
    asked = jobs.cancellation(keep, grace_seconds)
    jobs.transition(tx, row.number, expected=(row.status,), status="queued", available_at=now(), **asked)
    if row.status == "paused":
        events.append(tx, row.number, "job.queued", {"reason": "cancel", "keep": keep})


def _end(tx: Transaction, row: JobRow, keep: str, grace_seconds: float) -> None:
    asked = jobs.cancellation(keep, grace_seconds)
    source = move("paused" if row.status == "paused" else "queued", "cancelled")
    jobs.transition(tx, row.number, **source, **asked, stop_reason="cancelled", finished_at=now())
    nothing = {"selected_checkpoint": None, "error": None, "metrics": row.metrics or {}}
    events.append(tx, row.number, "job.cancelled", {"stop_reason": "cancelled", **nothing})


def _refuse_unless_cancelled(row: JobRow) -> None:
    if row.status != "cancelled":
        message = f"{row.id} is {row.status}; only a job that is not done can be cancelled."
        raise ConflictError(message, code="job_done")
