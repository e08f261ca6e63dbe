"""Jobs: queue, plan, list and delete them; ``polling.py`` shows one, and ``control.py`` has what steers them."""

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from epochd.api import conditional, examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, JobIdDep, SettingsDep
from epochd.api.params import get_idempotency_key, parse_tags
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.attempts import AttemptList
from epochd.contract.job import Job, JobList, PlannedJob, Status
from epochd.contract.spec import JobSpec
from epochd.jobs import delete, submit, view
from epochd.store import attempts, jobs
from epochd.store.jobs import JobRow

router = APIRouter(route_class=GuardedRoute, tags=["jobs"])

SpecBody = Annotated[JobSpec, Body(openapi_examples=examples.SPECS)]
LOCATION: Final = {
    "Location": {
        "description": "The path of the job.",
        "schema": {"type": "string"},
        "example": f"/v1/jobs/{examples.JOB_ID}",
    }
}


class ListQuery(BaseModel, extra="forbid"):
    """The query of the list of jobs."""

    limit: Annotated[int, Field(ge=1, le=200, description="Jobs a page.")] = 50
    after: Annotated[
        str | None, Field(max_length=64, description="The `next` of the page before.", examples=["42"])
    ] = None
    status: Annotated[
        list[Status],
        Field(max_length=20, description="Jobs in one of these statuses.", examples=[["running"]]),
    ] = []
    name: Annotated[
        str | None,
        Field(pattern=r"^[^\x00]{1,200}$", description="Jobs of exactly this name.", examples=["digits-mlp"]),
    ] = None
    tag: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}(:[^\x00]{0,256})?$")]],
        Field(
            max_length=64,
            description="`key:value`, or `key` for any value. Jobs that have all of these tags.",
            examples=[["team:vision"]],
        ),
    ] = []
    search: Annotated[
        str | None,
        Field(
            pattern=r"^[^\x00]{1,200}$",
            description="Jobs that have this text, in any case, in their id or name, or in the name of their data "
            "set or model.",
            examples=["digits"],
        ),
    ] = None


@router.post(
    "/jobs",
    operation_id="create_job",
    summary="Queue a job",
    status_code=201,
    response_model=Job,
    responses=describe(
        {
            201: {
                "description": "The job, queued. Every default of its spec is filled in.",
                "headers": LOCATION,
                "content": {"application/json": {"example": examples.JOB}},
            },
            200: {
                "model": Job,
                "description": "The job that the same request with the same `Idempotency-Key` had created.",
                "headers": LOCATION,
                "content": {"application/json": {"example": examples.JOB}},
            },
        },
        401,
        413,
        415,
        422,
        503,
    ),
)
def create_job(
    spec: SpecBody,
    db: DatabaseDep,
    idempotency_key: Annotated[str | None, Depends(get_idempotency_key)],
    _query: Nothing,
) -> Any:
    """Validate, resolve and plan a job, and queue it. It is stored before this answers."""
    submitted = submit.submit(db, spec, idempotency_key)
    status: Literal[201, 200] = 201 if submitted.created else 200
    return answer(submitted.row, status, {"Location": f"/v1/jobs/{submitted.row.id}"})


@router.post(
    "/jobs/plan",
    operation_id="plan_job",
    summary="Plan a job without creating it",
    responses=describe(
        {200: {"content": {"application/json": {"example": examples.PLANNED}}}}, 401, 413, 415, 422, 503
    ),
)
def plan_job(spec: SpecBody, db: DatabaseDep, _query: Nothing) -> PlannedJob:
    """The spec with every default filled in, its mini-batches, iterations and epochs, and advice."""
    with db.read() as tx:
        return submit.plan_job(tx, spec)


@router.get(
    "/jobs",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    responses=describe(
        {200: {"content": {"application/json": {"example": {"data": [examples.JOB], "next": None}}}}},
        401,
        422,
        503,
    ),
)
def list_jobs(query: Annotated[ListQuery, Query()], db: DatabaseDep) -> JobList:
    """A page of jobs; the filters hold together."""
    with db.read() as tx:
        rows, following = jobs.page(
            tx,
            limit=query.limit,
            after=query.after,
            statuses=query.status,
            name=query.name,
            tags=parse_tags(query.tag),
            search=query.search,
        )
    return JobList(data=[view.to_job(row) for row in rows], next=following)


@router.get(
    "/jobs/{job_id}/attempts",
    operation_id="list_attempts",
    summary="List the attempts of a job",
    response_model=AttemptList,
    responses=describe(
        {
            200: {
                "description": "All attempts, the first one first.",
                "headers": conditional.HEADERS,
                "content": {"application/json": {"example": examples.ATTEMPTS}},
            },
            304: conditional.NOT_MODIFIED,
        },
        401,
        404,
        422,
        503,
    ),
)
def list_attempts(request: Request, job_id: JobIdDep, db: DatabaseDep, _query: Nothing) -> Any:
    """Who trained the job where, how each attempt ended, and from which checkpoint it had begun."""
    with db.read() as tx:
        job = jobs.get(tx, job_id)
        headers = conditional.headers_of(job, "application/json")
        if conditional.is_known(request, headers):
            return conditional.not_modified(headers)
        rows = attempts.of_job(tx, job.number)
    body = AttemptList(data=[view.to_attempt(row) for row in rows])
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    summary="Remove a finished job",
    status_code=204,
    response_class=Response,
    responses=describe(
        {204: {"description": "The job is gone, with its metrics, events, checkpoints and artifacts."}},
        401,
        404,
        422,
        503,
        conflicts=("job_not_done", "job_in_use"),
    ),
)
def delete_job(job_id: JobIdDep, db: DatabaseDep, settings: SettingsDep, _query: Nothing) -> Response:
    """Remove a job that is done with all that it recorded."""
    delete.delete(db, job_id, settings.artifacts_dir, settings.checkpoints_dir)
    return Response(status_code=204)


def answer(row: JobRow, status: int, headers: dict[str, str] | None = None) -> Response:
    """Answer with a job."""
    # Written here, in the endpoint's thread, and once: FastAPI would do it on the event loop.
    return Response(view.to_job(row).model_dump_json(), status, headers, "application/json")
