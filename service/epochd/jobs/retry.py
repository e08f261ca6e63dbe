"""A caller has a failed or cancelled job tried again."""

from typing import Any, Final

from epochd.contract.job import RetrySource
from epochd.errors import ConflictError
from epochd.jobs import use, warm_start
from epochd.jobs.lifecycle import DONE, move
from epochd.store import amendments, artifacts, events, jobs
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now

_OF_THE_END: Final = (
    "stop_reason",
    "error",
    "finished_at",
    "cancel_requested_at",
    "cancel_keep",
    "cancel_grace_seconds",
    "selected_checkpoint",
)
_OF_THE_TRAINING: Final = ("progress", "metrics", "early_stopping", "diagnosis", "initial_spec")


def retry(db: Database, job_id: str, source: RetrySource) -> JobRow:
    """Queue a failed or cancelled job again, with all the attempts that its spec allows.

    From ``checkpoint`` it goes on from the newest one that can be used. From ``scratch`` it begins anew, with its spec
    as it was amended; what it had recorded is no longer part of its curve.

    Raises ``NotFoundError``, and ``ConflictError`` when the job has succeeded (``job_succeeded``), is not done
    (``job_not_done``), its data set was removed (``dataset_gone``), the job that it starts from was, or has no weights
    (``start_from_gone``), or a job that is not done starts from its weights (``job_in_use``): those go with a retry.
    """
    with db.write() as tx:
        row = jobs.get(tx, job_id, lock=True)
        _refuse(row)
        warm_start.require_unneeded(tx, row.id)
        use.hold(tx, row.id, row.spec)
        warm_start.hold_for_retry(tx, row)
        columns: dict[str, Any] = dict.fromkeys(_OF_THE_END)
        if source == "scratch":
            amendments.remove(tx, row.number)
            columns |= dict.fromkeys(_OF_THE_TRAINING)
            # `iteration` stays: streams compare it with events of the same attempt. The next attempt clears it.
            columns |= {"epoch": 0, "amendments": 0, "restarted_after": row.attempt}
        _queue(tx, row, columns)
        events.append(tx, row.number, "job.queued", {"reason": "retry", "from": source})
        return jobs.get(tx, job_id)


def _queue(tx: Transaction, row: JobRow, columns: dict[str, Any]) -> None:
    artifacts.remove(tx, row.number)
    source = move("failed" if row.status == "failed" else "cancelled", "queued")
    columns |= {"worker": None, "device": None, "retried_after": row.attempt, "available_at": now()}
    jobs.transition(tx, row.number, **source, **columns)


def _refuse(row: JobRow) -> None:
    if row.status == "succeeded":
        message = (
            f"{row.id} has succeeded: there is nothing to retry; send its spec again to train it once more."
        )
        raise ConflictError(message, code="job_succeeded")
    if row.status not in DONE:
        message = f"{row.id} is {row.status}; only a failed or cancelled job can be retried."
        raise ConflictError(message, code="job_not_done")
