"""What steers a job that was sent: amend, cancel, pause, resume and retry it."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Body

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep
from epochd.api.jobs import answer
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.job import CancelRequest, Job, JobPatch, PauseRequest, ResumeRequest, RetryRequest
from epochd.jobs import amend, cancel, pause, retry

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

PROBLEMS: Final = (401, 404, 413, 415, 422, 503)


def _shown(description: str, job: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": job}}}


@router.patch(
    "/jobs/{job_id}",
    operation_id="amend_job",
    summary="Amend a job that is not done",
    response_model=Job,
    responses=describe(
        {200: _shown("The job; its spec and plan are the amended ones already.", examples.RUNNING)},
        *PROBLEMS,
        conflicts=("job_done",),
    ),
)
def amend_job(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    patch: Annotated[JobPatch, Body(openapi_examples=examples.PATCHES)],
) -> Any:
    """Change `name`, `tags`, `priority`, `epochs`, `optimizer.learning_rate` or `early_stopping`.

    The first three change at once, a learning rate with the next iteration, the others at the end of the running
    epoch; while training has not begun, all of them at once. Each comes as an event, `spec.amended`, when it takes
    effect. That happens at one definite iteration, however often the job is interrupted. What comes too late, as
    the training ends first, is taken out of the spec again. What would be refused in a new job is refused here,
    and then nothing is changed.
    """
    return answer(amend.amend(db, job_id, patch), 200)


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancel_job",
    summary="End a job before its time",
    status_code=202,
    response_model=Job,
    responses=describe({202: _shown("The job.", examples.CANCELLING)}, *PROBLEMS, conflicts=("job_done",)),
)
def cancel_job(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    how: Annotated[CancelRequest | None, Body(openapi_examples=examples.CANCELS)] = None,
) -> Any:
    """Ask a job to end. It is `cancelled` once its process is gone; one that trained nothing at once.

    A paused job, or one that waits for its next attempt, is given to a worker once more if there are weights to
    keep. May be repeated.
    """
    wish = how or CancelRequest()
    return answer(cancel.cancel(db, job_id, keep=wish.keep, grace_seconds=wish.grace_seconds), 202)


@router.post(
    "/jobs/{job_id}/pause",
    operation_id="pause_job",
    summary="Give the device back and keep everything",
    status_code=202,
    response_model=Job,
    responses=describe(
        {202: _shown("The job.", examples.PAUSING)}, *PROBLEMS, conflicts=("job_done", "cancel_requested")
    ),
)
def pause_job(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    _how: Annotated[PauseRequest | None, Body(openapi_examples=examples.NOTHING)] = None,
) -> Any:
    """Ask a job to pause. It is `paused` once its process is gone, after saving a checkpoint.

    A queued one is at once. Stays paused until it is resumed or cancelled. May be repeated.
    """
    return answer(pause.pause(db, job_id), 202)


@router.post(
    "/jobs/{job_id}/resume",
    operation_id="resume_job",
    summary="Go on exactly where the job was paused",
    status_code=202,
    response_model=Job,
    responses=describe(
        {202: _shown("The job, queued.", examples.QUEUED)}, *PROBLEMS, conflicts=("job_done",)
    ),
)
def resume_job(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    _how: Annotated[ResumeRequest | None, Body(openapi_examples=examples.NOTHING)] = None,
) -> Any:
    """Queue a paused job again; a pause that was asked for and has not come yet is withdrawn. May be repeated."""
    return answer(pause.resume(db, job_id), 202)


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="retry_job",
    summary="Try a failed or cancelled job again",
    status_code=202,
    response_model=Job,
    responses=describe(
        {202: _shown("The job, queued.", examples.QUEUED)},
        *PROBLEMS,
        conflicts=("job_not_done", "job_succeeded", "job_in_use", "dataset_gone", "start_from_gone"),
    ),
)
def retry_job(
    job_id: JobIdDep,
    db: DatabaseDep,
    _query: Nothing,
    how: Annotated[RetryRequest | None, Body(openapi_examples=examples.RETRIES)] = None,
) -> Any:
    """Queue a failed or cancelled job again, with as many attempts as its spec allows.

    It goes on from its newest checkpoint, or `{"from": "scratch"}` from the beginning, under its spec as it was
    last amended. It is not done any more: its artifacts are gone, and its events go on.
    """
    return answer(retry.retry(db, job_id, (how or RetryRequest()).source), 202)
