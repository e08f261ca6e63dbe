"""How an attempt ends: with an outcome, lost, or given back.

Each function first ends the attempt by a guarded UPDATE. Who finds it ended already has lost it, and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from epochd.errors import TrainingError
from epochd.jobs.lifecycle import move
from epochd.store import artifacts, attempts, events, jobs
from epochd.store.artifacts import NewArtifact
from epochd.store.attempts import AttemptRow
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now, seconds_from_now

MAX_RETRY_DELAY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a runner reports when it is through, as plain data that travels between processes."""

    status: Literal["succeeded", "failed", "cancelled"]
    stop_reason: str
    selected_checkpoint: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    artifacts: Sequence[NewArtifact] = field(default_factory=tuple)

    @property
    def retryable(self) -> bool:
        """Whether another attempt may fare better."""
        return self.error is not None and bool(self.error["retryable"])


def error_dict(error: TrainingError, *, param: str | None = None) -> dict[str, Any]:
    """Write an error as the contract's ``error`` object."""
    return {
        "category": error.category,
        "code": error.code,
        "message": error.message,
        "param": param,
        "retryable": error.retryable,
    }


def complete(db: Database, attempt_id: int, outcome: Outcome, *, retry_delay_seconds: float) -> bool:
    """End an attempt as its runner reported, and with it the job, unless a retry may help.

    A job that would be tried again although its cancellation was asked for is cancelled instead. Returns False,
    with nothing written, when the attempt had been ended by somebody else.
    """
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        if not attempts.finish(tx, attempt_id, outcome=outcome.status, error=outcome.error):
            return False
        job = _job_of(tx, attempt)
        if outcome.retryable and job.cancel_requested_at is not None:
            # The error stays visible: it is why no weights were kept.
            _end(tx, job, replace(outcome, status="cancelled", stop_reason="cancelled"))
        elif outcome.retryable:
            reason = str((outcome.error or {})["message"])
            _try_again(tx, job, reason, retry_delay_seconds, last=outcome)
        else:
            _end(tx, job, outcome)
    return True


def lose(
    db: Database, attempt_id: int, reason: str, *, retry_delay_seconds: float, only_expired: bool = False
) -> bool:
    """End an attempt whose process or lease is gone: the job is queued again, or fails when it was its last chance.

    A job whose cancellation was asked for is cancelled instead. Returns False when the attempt had ended already or,
    with ``only_expired``, when its lease was renewed in the meantime.
    """
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        if not attempts.finish(tx, attempt_id, outcome="lost", only_expired=only_expired):
            return False
        job = _job_of(tx, attempt)
        _try_again(tx, job, reason, retry_delay_seconds, last=_out_of_attempts(job, reason))
    return True


def cancel_killed(db: Database, attempt_id: int) -> bool:
    """End an attempt whose process was killed because its job was cancelled: no weights are kept."""
    return complete(db, attempt_id, Outcome("cancelled", "cancelled"), retry_delay_seconds=0)


def give_back(db: Database, attempt_id: int, reason: str) -> bool:
    """End an attempt because its worker shuts down: the job is queued again at once, and no attempt is counted."""
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        if not attempts.finish(tx, attempt_id, outcome="released"):
            return False
        job = _job_of(tx, attempt)
        if job.cancel_requested_at is not None:
            _end(tx, job, Outcome("cancelled", "cancelled"))
        else:
            _queue_again(tx, job, reason, 0)
    return True


def _job_of(tx: Transaction, attempt: AttemptRow) -> JobRow:
    # Locked: a cancellation comes before this, and is seen here, or after it, and sees what became of the job.
    job = jobs.by_number(tx, attempt.job_number, lock=True)
    assert job is not None, "an attempt goes with its job"
    return job


def _failures(tx: Transaction, job: JobRow) -> list[AttemptRow]:
    # Attempts given back at a shutdown are nobody's failure.
    return [attempt for attempt in attempts.of_job(tx, job.number) if attempt.outcome in {"lost", "failed"}]


def _try_again(tx: Transaction, job: JobRow, reason: str, delay_seconds: float, *, last: Outcome) -> None:
    """Queue the job again; end it when nobody wants that any more, or as ``last`` when it had its last chance."""
    if job.cancel_requested_at is not None:
        _end(tx, job, Outcome("cancelled", "cancelled"))
    elif _may_retry(tx, job):
        _queue_again(tx, job, reason, delay_seconds)
    else:
        _end(tx, job, last)


def _may_retry(tx: Transaction, job: JobRow) -> bool:
    return len(_failures(tx, job)) < int(job.spec["max_attempts"])


def _queue_again(tx: Transaction, job: JobRow, reason: str, delay_seconds: float) -> None:
    failures = max(len(_failures(tx, job)), 1)
    delay = min(delay_seconds * 2 ** (failures - 1), MAX_RETRY_DELAY_SECONDS)
    jobs.transition(
        tx,
        job.number,
        **move("running", "queued"),
        available_at=seconds_from_now(delay),
        worker=None,
        device=None,
    )
    data = {"attempt": job.attempt, "reason": reason, "retry_in_seconds": delay}
    events.append(tx, job.number, "attempt.lost", data)


def _out_of_attempts(job: JobRow, reason: str) -> Outcome:
    message = (
        f"{reason} That was attempt {job.attempt} and the spec allows {job.spec['max_attempts']}; "
        "look at the worker's log, then send the job again."
    )
    error = {
        "category": "infrastructure",
        "code": "attempts_exhausted",
        "message": message,
        "param": None,
        "retryable": True,
    }
    return Outcome("failed", "failed", error=error)


def _end(tx: Transaction, job: JobRow, outcome: Outcome) -> None:
    artifacts.insert_many(tx, job.number, outcome.artifacts)
    jobs.transition(
        tx,
        job.number,
        **move("running", outcome.status),
        stop_reason=outcome.stop_reason,
        selected_checkpoint=outcome.selected_checkpoint,
        error=outcome.error,
        finished_at=now(),
    )
    data = {
        "stop_reason": outcome.stop_reason,
        "selected_checkpoint": outcome.selected_checkpoint,
        "error": outcome.error,
        "metrics": job.metrics or {},
    }
    events.append(tx, job.number, f"job.{outcome.status}", data)
