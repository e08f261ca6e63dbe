"""The events of a job: a page at a time, or as a stream that never misses and never repeats one."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Send

from epochd.api import stream
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, FeedDep, JobIdDep, SettingsDep
from epochd.api.errors import problem_of, unexpected
from epochd.api.examples import EVENTS, STREAM
from epochd.api.feed import Channel, Feed, Ring
from epochd.api.negotiate import negotiate
from epochd.api.responses import describe
from epochd.api.stream import Cursor
from epochd.contract.events import EVENT_DATA, Events
from epochd.errors import EpochdError, InvalidRequestError, ParamError
from epochd.store import events, jobs
from epochd.store.database import Database

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
                    "connection brings exactly the rest. Lines that begin with `:` are heartbeats. Should "
                    "the service fail, the last message is an `error` whose data is a problem."
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
    start = last_event_id or query.after
    number, cursor, over = await run_in_threadpool(_start, db, job_id, start, iterations=query.iterations)
    if over:
        return Response(status_code=204, headers=STREAM_HEADERS)
    subscriber = Subscriber(db, feed, number, cursor, iterations=query.iterations)
    return EventStream(subscriber.messages(settings.heartbeat_seconds))


def _page(db: Database, job_id: str, query: EventsQuery) -> Response:
    if query.iterations:
        message = f"goes with 'Accept: {EVENT_STREAM}' only; for pages see /v1/jobs/{job_id}/iterations"
        raise InvalidRequestError.of(ParamError("iterations", message, "streams_only"))
    after = int((query.after or "0").partition("-")[0])
    with db.read() as tx:
        rows = events.after(tx, jobs.get(tx, job_id).number, after, query.limit + 1)
    page = rows[: query.limit]
    following = page[-1].seq if len(rows) > query.limit else None
    body = Events.model_validate({"data": [stream.as_json(row) for row in page], "next": following})
    return Response(body.model_dump_json(), media_type=JSON)


def _start(db: Database, job_id: str, event_id: str | None, *, iterations: bool) -> tuple[int, Cursor, bool]:
    with db.read() as tx:
        number = jobs.get(tx, job_id).number
        cursor = stream.start(tx, number, event_id, iterations=iterations)
        return number, cursor, stream.is_over(tx, number, cursor)


class Subscriber:
    """Somebody who reads a job's stream: a cursor, and where to take what follows it."""

    def __init__(
        self, db: Database, feed: Feed, job_number: int, cursor: Cursor, *, iterations: bool
    ) -> None:
        self._db = db
        self._feed = feed
        self._job_number = job_number
        self._cursor = cursor
        self._iterations = iterations
        self._over = False

    async def messages(self, heartbeat_seconds: float) -> AsyncGenerator[bytes]:
        """Yield the stream's bytes until the job's last event, the feed's end, or an error, which is told."""
        yield stream.PREAMBLE
        try:
            with self._feed.watch(self._job_number) as channel:
                ring = channel.rings.get(self._iterations) or await self._new_ring(channel)
                while not (self._over or self._feed.closed):
                    if chunk := await self._next(ring):
                        yield chunk
                    elif channel.gone:
                        return
                    elif self._cursor >= ring.head and not await channel.wait(heartbeat_seconds):
                        yield stream.HEARTBEAT
        except Exception as error:  # noqa: BLE001 - the answer has begun: the error can only be told in it
            problem = problem_of(error) if isinstance(error, EpochdError) else unexpected(error)
            yield stream.encode("error", bytes(problem.body))

    async def _new_ring(self, channel: Channel) -> Ring:
        head = await run_in_threadpool(self._head)
        return self._feed.add_ring(channel, head, iterations=self._iterations)

    def _head(self) -> Cursor:
        with self._db.read() as tx:
            return stream.head_of(tx, self._job_number, iterations=self._iterations) or self._cursor

    async def _next(self, ring: Ring) -> bytes:
        """Take what is there from the ring or, behind it, from the database."""
        page = ring.since(self._cursor)
        if page is None:
            page = await run_in_threadpool(self._read, ring.head)
            self._over = page.cursor == self._cursor  # nothing is left where something should be: deleted
        self._cursor = page.cursor
        if page.frames and page.frames[-1].terminal:
            # The ring may know less than the database: the job may have been retried a moment ago.
            self._over = await run_in_threadpool(self._is_over)
        return b"".join(frame.data for frame in page.frames)

    def _is_over(self) -> bool:
        with self._db.read() as tx:
            return stream.is_over(tx, self._job_number, self._cursor)

    def _read(self, head: Cursor) -> stream.Page:
        with self._db.read() as tx:
            return stream.read_page(tx, self._job_number, self._cursor, head, iterations=self._iterations)


class EventStream(StreamingResponse):
    """A stream of bytes whose iterator is closed as soon as the client is gone."""

    def __init__(self, messages: AsyncGenerator[bytes]) -> None:
        super().__init__(messages, headers=STREAM_HEADERS, media_type=EVENT_STREAM)
        self._messages = messages

    async def stream_response(self, send: Send) -> None:
        """Send everything, and close the iterator whatever happens."""
        async with aclosing(self._messages):
            await super().stream_response(send)
