"""The events of a job: a page at a time, or as a stream that never misses and never repeats one."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from epochd.api import stream
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, FeedDep, JobIdDep, SettingsDep
from epochd.api.event_stream import EventStream
from epochd.api.examples import EVENTS, STREAM
from epochd.api.negotiate import negotiate
from epochd.api.responses import describe
from epochd.api.stream import Cursor
from epochd.api.subscriber import Subscriber
from epochd.contract.events import EVENT_DATA, Events, EventType
from epochd.errors import InvalidRequestError, ParamError
from epochd.store import events, jobs
from epochd.store.database import Database
from epochd.store.jobs import JobRow

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
STREAM_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

DESCRIPTION: Final = (
    "A job's durable, numbered sequence of events: the same to polling and to streaming. Of a job that was done "
    "and then retried, the sequence goes on.\n\nWhat `data` holds, by `type`:\n\n"
) + "\n".join(f"- `{kind}`: {data}." for kind, data in EVENT_DATA.items())

router = APIRouter(route_class=GuardedRoute, tags=["events"])


class EventsQuery(BaseModel, extra="forbid"):
    """The query of a job's events."""

    after: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$",
            description="Only what follows this event: its `seq`, or the `id` of a message of the stream. "
            "On a stream the `Last-Event-ID` header wins over it.",
            examples=["17"],
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=200, description="Events a page; a stream has no pages.")] = 50
    type: Annotated[
        list[EventType],
        Field(max_length=20, description="Pages only: events of these types.", examples=[["job.started"]]),
    ] = []
    iterations: Annotated[
        bool, Field(description="Streams only: add `iterations` messages, at most a few a second.")
    ] = False


@router.get(
    "/jobs/{job_id}/events",
    operation_id="list_events",
    summary="Read or stream the events of a job",
    description=DESCRIPTION,
    response_model=Events,
    responses=describe(
        {
            200: {
                "description": (
                    "A page of events; or, with `Accept: text/event-stream`, server-sent events until the "
                    "job is done. Each event comes with its `type` as the message's `event`, its `seq` as"
                    " `id`, and the same JSON object as in a page as `data`. With `iterations=true` there "
                    'are `iterations` messages besides, whose `data` is `{"attempt", "columns"}`: columns as'
                    " in `GET …/iterations`, and those of a new attempt from its first iteration on. Take an"
                    " `id` as it is: with the last one in `Last-Event-ID` (browsers do that) a new "
                    "connection brings exactly the rest. Lines that begin with `:` are heartbeats. Who is too slow is "
                    "cut off: who takes nothing for half a minute, or was up to date and has fallen far behind since"
                    " (an operator may set the time). The last message is then `stream.interrupted`, without an "
                    '`id`, and its data is `{"code": "too_slow", "message", "resume_after"}`: connect again with'
                    " `resume_after` as `Last-Event-ID`. Should the service fail, the last message is an `error` "
                    "whose data is a problem."
                ),
                "content": {
                    JSON: {"example": EVENTS},
                    EVENT_STREAM: {"schema": {"type": "string"}, "example": STREAM},
                },
            },
            204: {
                "description": "Streams only: the job is done and its last event is known. Do not reconnect."
            },
        },
        401,
        404,
        406,
        422,
        503,
        archived=True,
    ),
)
async def list_events(  # noqa: PLR0913, PLR0917 - FastAPI passes each by its name
    request: Request,
    job_id: JobIdDep,
    query: Annotated[EventsQuery, Query()],
    db: DatabaseDep,
    feed: FeedDep,
    settings: SettingsDep,
    last_event_id: Annotated[
        str | None,
        Header(description="Streams only: the `id` of the last message received.", examples=["17"]),
    ] = None,
) -> Any:
    """A job's durable, numbered sequence of events: the same to polling and to streaming."""
    if negotiate(request.headers.get("accept"), (JSON, EVENT_STREAM)) == JSON:
        return await run_in_threadpool(_page, db, job_id, query)
    if query.type:
        message = "goes with 'Accept: application/json' only: a stream has every event"
        raise InvalidRequestError.of(ParamError("type", message, "pages_only"))
    start = last_event_id or query.after
    job, cursor, over = await run_in_threadpool(_start, db, job_id, start, iterations=query.iterations)
    if over:
        return Response(status_code=204, headers=STREAM_HEADERS)
    patience = settings.slow_reader_seconds
    subscriber = Subscriber(
        db,
        feed,
        job.number,
        cursor,
        known=job.last_event,
        iterations=query.iterations,
        patience=patience,
    )
    return EventStream(
        subscriber.tell, STREAM_HEADERS, heartbeat=settings.heartbeat_seconds, patience=patience
    )


def _page(db: Database, job_id: str, query: EventsQuery) -> Response:
    if query.iterations:
        message = f"goes with 'Accept: {EVENT_STREAM}' only; for pages see /v1/jobs/{job_id}/iterations"
        raise InvalidRequestError.of(ParamError("iterations", message, "streams_only"))
    after = int((query.after or "0").partition("-")[0])
    with db.read() as tx:
        job = jobs.get(tx, job_id)
        rows = events.after(tx, job.number, after, query.limit + 1, query.type)
    page = rows[: query.limit]
    following = page[-1].seq if len(rows) > query.limit else None
    shown = [stream.as_json(row) for row in page]
    body = Events.model_validate({"data": shown, "next": following, "newest": job.last_event})
    return Response(body.model_dump_json(), media_type=JSON)


def _start(
    db: Database, job_id: str, event_id: str | None, *, iterations: bool
) -> tuple[JobRow, Cursor, bool]:
    with db.read() as tx:
        job = jobs.get(tx, job_id)
        cursor = stream.start(tx, job.number, event_id, iterations=iterations)
        return job, cursor, stream.is_over(tx, job.number, cursor)
