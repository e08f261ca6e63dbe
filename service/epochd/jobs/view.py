"""A row of the store as the job that callers see."""

from typing import Any, Final

from epochd.contract.job import Job
from epochd.jobs.lifecycle import is_done
from epochd.store.jobs import JobRow

NOTHING_SEEN: Final[dict[str, Any]] = {
    "verdict": "undetermined",
    "since_epoch": None,
    "evidence": "No epoch has been completed yet.",
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
            "diagnosis": row.diagnosis or NOTHING_SEEN,
            "selected_checkpoint": row.selected_checkpoint,
            "advice": row.advice,
            "error": row.error,
            "attempt": row.attempt,
            "worker": row.worker,
            "device": row.device,
            "created_at": row.created_at,
            "started_at": row.started_at,
            "finished_at": row.finished_at,
            "cancel_requested_at": row.cancel_requested_at,
        }
    )


def _progress(row: JobRow) -> dict[str, Any]:
    total = int(row.plan["total_iterations"])
    measured = row.progress or {}
    return {
        "epoch": row.epoch,
        "epochs": row.spec["epochs"],
        "iteration": row.iteration,
        "total_iterations": total,
        "fraction": round(row.iteration / total, 6),
        "samples_per_second": measured.get("samples_per_second"),
        "elapsed_seconds": measured.get("elapsed_seconds"),
        "eta_seconds": 0.0 if is_done(row.status) else measured.get("eta_seconds"),
        "metrics_lag_seconds": 0.0 if is_done(row.status) else measured.get("metrics_lag_seconds"),
    }


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
    }
