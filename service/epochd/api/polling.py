"""Looking at a job and waiting for it: what every caller does, over and over, and what must cost little."""

from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from epochd.api import conditional, examples
from epochd.api.auth import GuardedRoute, authenticate, let_in
from epochd.api.deps import BoardDep, FeedDep, JobIdDep, get_board, get_job_id
from epochd.api.job_board import MEDIA_TYPE, Shown
from epochd.api.responses import describe
from epochd.api.traffic import TrafficDep
from epochd.api.waiting import Until, is_to_wait, wait_for
from epochd.contract.job import Job

MAX_WAIT_SECONDS: Final = 60
_SHOWN: Final = {
    "headers": conditional.HEADERS,
    "content": {"application/json": {"example": examples.JOB}},
}


class PolledRoute(GuardedRoute):
    """The route of ``get_job``: where there is no query to look at, it answers by itself.

    FastAPI's way through dependencies and exit stacks costs several times as much as all that is done here. What a
    caller sees is the same, errors included; a test compares the two.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["query_string"] or scope["method"] != "GET":
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive)
        await let_in(request)
        job_id = await get_job_id(scope["path_params"]["job_id"])
        board = await get_board(request)
        response = _answer(request, await board.read(job_id))
        await response(scope, receive, send)


class WaitQuery(BaseModel, extra="forbid"):
    """The query of one job."""

    wait_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="Answer after so many seconds at the latest.",
        ),
    ] = 0
    until: Annotated[
        Until,
        Field(
            description="What to wait for: the job's end, its next epoch, or any change. A job that is done "
            "is answered at once."
        ),
    ] = "done"


async def get_job(  # noqa: PLR0913, PLR0917 - FastAPI passes each by its name
    request: Request,
    job_id: JobIdDep,
    query: Annotated[WaitQuery, Query()],
    board: BoardDep,
    feed: FeedDep,
    traffic: TrafficDep,
) -> Any:
    """The job as it is now, or with `wait_seconds` as soon as `until` has come true."""
    shown = await board.read(job_id)
    if query.wait_seconds and is_to_wait(feed, shown.row):
        with traffic.long_poll(request.scope):
            await wait_for(feed, shown.row, query.until, query.wait_seconds, request.receive)
        shown = await board.read(job_id)
    return _answer(request, shown)


def install(app: FastAPI) -> None:
    """Give the application this one endpoint."""
    # Not by a router that is included: FastAPI looks for the route of a request anew in each, several times.
    app.router.add_api_route(
        "/v1/jobs/{job_id}",
        get_job,
        route_class_override=PolledRoute,
        methods=["GET"],
        tags=["jobs"],
        operation_id="get_job",
        summary="Look at a job, or wait for it",
        dependencies=[Depends(authenticate)],
        response_model=Job,
        responses=describe({200: _SHOWN, 304: conditional.NOT_MODIFIED}, 401, 404, 422, 503),
    )


def _answer(request: Request, shown: Shown) -> Response:
    if conditional.is_known(request, shown.headers):
        return conditional.not_modified(shown.headers)
    return Response(shown.body, headers=shown.headers, media_type=MEDIA_TYPE)
