"""Rows of the store as callers see them."""

from datetime import UTC, datetime
from typing import Any, Final

from epochd.contract.attempts import Attempt
from epochd.contract.job import Job, JobDiagnosis
from epochd.jobs.lifecycle import is_done
from epochd.jobs.remedies import remedies
from epochd.store.attempts import AttemptRow
from epochd.store.jobs import JobRow

NOTHING_SEEN: Final[dict[str, Any]] = {
    "verdict": "undetermined",
    "since_epoch": None,
    "confidence": None,
    "evidence": "No epoch has been completed yet.",
    "measurements": {},
    "suggestions": [],
}


def to_job(row: JobRow) -> Job:
    """Show a job as the contract describes it."""
    return Job.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "status": row.status,
            "done": is_done(row.status),
            "stop_reason": row.stop_reason,
            "spec": row.spec,
            "plan": row.plan,
            "progress": _progress(row),
            "metrics": row.metrics or {},
            "early_stopping": row.early_stopping or _early_stopping_before(row.spec),
            "diagnosis": diagnosis_of(row),
            "selected_checkpoint": row.selected_checkpoint,
            "advice": [*row.advice, *_about_micro_batches(row)],
            "error": row.error,
            "attempt": row.attempt,
            "worker": row.worker,
            "device": row.device,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "cancel_requested_at": row.cancel_requested_at,
            "pause_requested_at": row.pause_requested_at,
        }
    )


def diagnosis_of(row: JobRow) -> dict[str, Any]:
    """What the curves say, and what to change in the spec for it."""
    if row.diagnosis is None:
        return NOTHING_SEEN
    train_samples = int(row.plan["train_samples"])
    # Earlier versions stored suggestions, whatever the spec.
    return {**row.diagnosis, "suggestions": remedies(row.diagnosis, row.spec, train_samples=train_samples)}


def to_diagnosis(row: JobRow) -> JobDiagnosis:
    """The same as an answer of its own."""
    return JobDiagnosis.model_validate(
        {
            "job": row.id,
            "status": row.status,
            "epoch": row.epoch,
            "final": is_done(row.status),
            **diagnosis_of(row),
        }
    )


def to_attempt(row: AttemptRow) -> Attempt:
    """Show an attempt as the contract describes it."""
    return Attempt.model_validate(
        {
            "attempt": row.number,
            "worker": row.worker,
            "device": row.device,
            "started_at": row.claimed_at,
            "finished_at": row.finished_at,
            "outcome": row.outcome,
            "first_iteration": row.first_iteration,
            "last_iteration": row.last_iteration if row.last_iteration >= row.first_iteration else None,
            "restored": row.restored,
            "error": row.error,
        }
    )


def _progress(row: JobRow) -> dict[str, Any]:
    total = int(row.plan["total_iterations"])
    measured = row.progress or {}
    return {
        "epoch": row.epoch,
        "epochs": row.spec["epochs"],
        "iteration": row.shown_iteration,
        "total_iterations": total,
        "fraction": min(round(row.shown_iteration / total, 6), 1.0),
        "samples_per_second": measured.get("samples_per_second"),
        "elapsed_seconds": measured.get("elapsed_seconds"),
        "eta_seconds": 0.0 if is_done(row.status) else measured.get("eta_seconds"),
        "metrics_lag_seconds": _lag_seconds(row, measured),
        "micro_batch_size": (measured.get("micro_batches") or {}).get("size"),
        "peak_memory_bytes": measured.get("peak_memory_bytes"),
    }


def _about_micro_batches(row: JobRow) -> list[dict[str, str]]:
    """What to say once training has split mini-batches of a model that takes statistics from them."""
    split = (row.progress or {}).get("micro_batches")
    if not split or not split["batch_statistics"]:
        return []
    message = (
        f"Mini-batches of {row.plan['batch_size']} did not fit into memory and are worked through in micro-batches of "
        f"at most {split['size']}. Batch normalisation takes its mean and deviation from each of them, so that this "
        f"training differs from one whose mini-batches fit. A batch size of {split['size']} or a larger machine makes "
        "it one that can be compared."
    )
    return [{"code": "batch_norm_sees_micro_batches", "param": "batch_size", "message": message}]


def _lag_seconds(row: JobRow, measured: dict[str, Any]) -> float | None:
    """How far behind training its record may be: what it was when it was last written, and the time since.

    So it grows while the worker cannot reach the database. None before the first attempt has recorded anything.
    """
    recorded = measured.get("metrics_lag_seconds")
    if row.status != "running" or row.recorded_at is None:
        return None if recorded is None else 0.0
    since = (datetime.now(UTC) - row.recorded_at).total_seconds()
    return round((recorded or 0.0) + max(since, 0.0), 3)


def _early_stopping_before(spec: dict[str, Any]) -> dict[str, Any] | None:
    policy = spec["early_stopping"]
    if policy is None:
        return None
    return {
        "monitor": policy["monitor"],
        "mode": policy["mode"],
        "patience": policy["patience"],
        "best_value": None,
        "best_epoch": None,
        "epochs_without_improvement": 0,
        "stopped": False,
        "stopped_epoch": None,
        "message": None,
        "min_delta": None if policy["min_delta"] == "auto" else policy["min_delta"],
    }
