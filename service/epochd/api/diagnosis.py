"""What the curves of a job say, and what to do about it."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from epochd.api import conditional, examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.job import JobDiagnosis
from epochd.jobs import view
from epochd.store import jobs

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

EXAMPLE: Final[dict[str, Any]] = {
    "job": examples.JOB["id"],
    "status": "running",
    "epoch": 34,
    "final": False,
    "verdict": "overfitting",
    "since_epoch": 19,
    "confidence": 0.92,
    "evidence": "The validation loss has risen from 0.4112 around epoch 18 to 0.6341, while the training loss went on "
    "falling from 0.2203 to 0.0417.",
    "measurements": {
        "epochs": 100,
        "validated_epochs": 34,
        "last_epoch": 34,
        "best_epoch": 18,
        "train_loss": 0.0417,
        "validation_loss": 0.6341,
        "best_validation_loss": 0.4112,
        "trivial_loss": 2.302,
        "distance_to_trivial": 0.7245,
        "generalisation_gap": 0.5924,
        "train_slope": -0.0043,
        "train_slope_error": 0.0002,
        "validation_slope": 0.0151,
        "validation_slope_error": 0.0011,
        "gap_slope": 0.0194,
        "gap_slope_error": 0.0011,
        "still_falling": 0,
        "train_noise": 0.0012,
        "validation_noise": 0.0088,
        "mini_batch_noise": 0.0311,
    },
    "suggestions": [
        {
            "message": "Stop when validation no longer improves, and keep the best epoch.",
            "patch": {"early_stopping": {"monitor": "validation_loss", "mode": "min", "patience": 5}},
        },
        {"message": "Or train no longer than to its best epoch, 18.", "patch": {"epochs": 18}},
    ],
}


@router.get(
    "/jobs/{job_id}/diagnosis",
    operation_id="diagnose_job",
    summary="What the loss curves of a job say",
    response_model=JobDiagnosis,
    responses=describe(
        {
            200: {
                "description": "The verdict after the newest epoch; `final` once the job is done.",
                "headers": conditional.HEADERS,
                "content": {"application/json": {"example": EXAMPLE}},
            },
            304: conditional.NOT_MODIFIED,
        },
        401,
        404,
        422,
        503,
    ),
)
def diagnose_job(request: Request, job_id: JobIdDep, db: DatabaseDep, _query: Nothing) -> Any:
    """Underfitting, overfitting, …: since when, how surely, by which numbers, and what to change in the spec.

    A suggestion's `patch` replaces fields of the spec: `POST /v1/jobs` with the job's `spec` and the patch on top of it
    tries it out.
    """
    with db.read() as tx:
        job = jobs.get(tx, job_id)
    headers = conditional.headers_of(job, "application/json")
    if conditional.is_known(request, headers):
        return conditional.not_modified(headers)
    body = view.to_diagnosis(job).model_dump_json()
    return Response(body, headers=headers, media_type="application/json")
