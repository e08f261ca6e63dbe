"""How an attempt ends: with an outcome, lost, or given back.

Each function first ends the attempt by a guarded UPDATE. Who finds it ended already has lost it, and changes nothing.
Then it locks the job: whoever asks for a cancellation or a pause does so before, and is heard here, or afterwards, and
finds a job that nobody runs. The counters come last: everybody who ends an attempt waits for whoever holds them.

What becomes of the job, when nobody asked for anything, when a pause was asked for, or a cancellation (which comes
before a pause):

==================  ===========================  ==========================  =====================================
the attempt         nothing asked                pause                       cancellation
==================  ===========================  ==========================  =====================================
succeeded           succeeded                    succeeded                   succeeded
failed for good     failed                       failed                      failed
may fare better     queued; failed when it was   paused; failed likewise     queued where weights are to be kept
(or lost)           its last chance                                          and it is not the last chance; else
                                                                             cancelled
given back          queued                       paused                      queued where weights are to be kept;
                                                                             else cancelled
paused              queued (it was withdrawn)    paused                      like given back
cancelled           -                            -                           cancelled
==================  ===========================  ==========================  =====================================
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from epochd.errors import TrainingError
from epochd.jobs.amend import withdraw_pending
from epochd.jobs.cancel import cancel_idle, has_weights
from epochd.jobs.lifecycle import DONE, move
from epochd.jobs.pause import to_paused, to_queued
from epochd.store import artifacts, attempts, counters, events, jobs
from epochd.store.artifacts import NewArtifact
from epochd.store.attempts import AttemptRow
from epochd.store.database import Database, Transaction
from epochd.store.jobs import JobRow
from epochd.store.types import now, seconds_from_now

MAX_RETRY_DELAY_SECONDS = 600.0
SHUT_DOWN = "The worker was shut down."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a runner reports when it is through, as plain data that travels between processes.

    ``paused`` and ``released`` (its worker shuts down) have no ``stop_reason``: the job goes on.
    """

    status: Literal["succeeded", "failed", "cancelled", "paused", "released"]
    stop_reason: str | None = None
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
    """End an attempt as its runner reported, and with it the job, unless that is to go on.

    Returns False, with nothing written, when the attempt had been ended by somebody else.
    """
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        ended = attempts.finish(tx, attempt_id, outcome=outcome.status, error=outcome.error)
        if ended is None:
            return False
        job = _job_of(tx, attempt)
        if outcome.status == "released":
            _release(tx, job, SHUT_DOWN)
        elif outcome.status == "paused":
            _pause(tx, job)
        elif outcome.retryable:
            # The error of a cancelled job stays visible: it is why no weights were kept.
            cancelled = replace(outcome, status="cancelled", stop_reason="cancelled")
            reason = str((outcome.error or {})["message"])
            _try_again(tx, job, reason, retry_delay_seconds, last=outcome, cancelled=cancelled)
        else:
            _end(tx, job, outcome)
        counters.count(tx, ended)
    return True


def lose(
    db: Database, attempt_id: int, reason: str, *, retry_delay_seconds: float, only_expired: bool = False
) -> bool:
    """End an attempt whose process or lease is gone: the job is tried again, or fails when it was its last chance.

    Returns False when the attempt had ended already or, with ``only_expired``, when its lease was renewed in the
    meantime.
    """
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        ended = attempts.finish(tx, attempt_id, outcome="lost", only_expired=only_expired)
        if ended is None:
            return False
        job = _job_of(tx, attempt)
        last, cancelled = _out_of_attempts(job, reason), Outcome("cancelled", "cancelled")
        _try_again(tx, job, reason, retry_delay_seconds, last=last, cancelled=cancelled)
        counters.count(tx, ended)
    return True


def cancel_killed(db: Database, attempt_id: int) -> bool:
    """End an attempt whose process was killed because its job was cancelled: no weights are kept."""
    return complete(db, attempt_id, Outcome("cancelled", "cancelled"), retry_delay_seconds=0)


def give_back(db: Database, attempt_id: int, reason: str) -> bool:
    """End an attempt because its worker shuts down: the job is queued again at once, and no attempt is counted."""
    with db.write() as tx:
        attempt = attempts.get(tx, attempt_id)
        ended = attempts.finish(tx, attempt_id, outcome="released")
        if ended is None:
            return False
        _release(tx, _job_of(tx, attempt), reason)
        counters.count(tx, ended)
    return True


def _job_of(tx: Transaction, attempt: AttemptRow) -> JobRow:
    # Locked: a cancellation comes before this, and is seen here, or after it, and sees what became of the job.
    job = jobs.by_number(tx, attempt.job_number, lock=True)
    assert job is not None, "an attempt goes with its job"
    return job


def _pause(tx: Transaction, job: JobRow) -> None:
    """Pause a job as it was asked to, unless somebody thought better of it while it was under way."""
    to_paused(tx, job)
    idle = replace(job, status="paused")
    if job.cancel_requested_at is not None:
        cancel_idle(tx, idle, job.cancel_keep or "nothing", job.cancel_grace_seconds or 0.0)
    elif job.pause_requested_at is None:
        to_queued(tx, idle)


def _release(tx: Transaction, job: JobRow, reason: str) -> None:
    """Let a job go on elsewhere; nobody has failed."""
    if job.cancel_requested_at is not None and not has_weights(tx, job, job.cancel_keep):
        _end(tx, job, Outcome("cancelled", "cancelled"))
    elif job.cancel_requested_at is None and job.pause_requested_at is not None:
        to_paused(tx, job)
    else:
        _queue_again(tx, job, reason, 0)


def _try_again(  # noqa: PLR0913 - each is one fact
    tx: Transaction, job: JobRow, reason: str, delay_seconds: float, *, last: Outcome, cancelled: Outcome
) -> None:
    """Let a job go on after a failure; end it as ``last`` when it had its last chance, or as ``cancelled``."""
    hopeless = len(_failures(tx, job)) >= int(job.spec["max_attempts"])
    if job.cancel_requested_at is not None:
        # A runner that failed may have brought the weights along.
        nothing_to_fetch = bool(cancelled.artifacts) or not has_weights(tx, job, job.cancel_keep)
        if hopeless or nothing_to_fetch:
            _end(tx, job, cancelled)
            return
    elif hopeless:
        _end(tx, job, last)
        return
    elif job.pause_requested_at is not None:
        _tell_lost(tx, job, reason, None)
        to_paused(tx, job)
        return
    _queue_again(tx, job, reason, delay_seconds)


def _failures(tx: Transaction, job: JobRow) -> list[AttemptRow]:
    # Attempts given back at a shutdown are nobody's failure; those before a retry are forgiven.
    made = [attempt for attempt in attempts.of_job(tx, job.number) if attempt.number > job.retried_after]
    return [attempt for attempt in made if attempt.outcome in {"lost", "failed"}]


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
        pause_requested_at=None,
    )
    _tell_lost(tx, job, reason, delay)


def _tell_lost(tx: Transaction, job: JobRow, reason: str, delay: float | None) -> None:
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
    assert outcome.status in DONE, "the others go on"
    artifacts.insert_many(tx, job.number, outcome.artifacts)
    if outcome.status == "succeeded":
        withdraw_pending(tx, job)
    jobs.transition(
        tx,
        job.number,
        **move("running", outcome.status),
        pause_requested_at=None,
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
