"""The same events to many readers as others send them: ``python sse.py RATE``, which prints its port.

They come out of this very process, where epochd's come out of a database: what they take is counted from the moment
at which the event is there.
"""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response, StreamingResponse

KIND = "diagnosis.changed"


class Source:
    """Numbered events at a steady rate, for all who read."""

    def __init__(self) -> None:
        self.sent: list[float] = []
        self.events: list[dict[str, Any]] = []
        self.encoded: list[bytes] = []
        self._changed = asyncio.Event()

    async def produce(self, rate: float) -> None:
        while True:
            await asyncio.sleep(1 / rate)
            seq = len(self.events) + 1
            event = {"seq": seq, "type": KIND, "created_at": "2026-01-31T09:00:00.123Z", "data": {"n": seq}}
            self.encoded.append(
                b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, KIND.encode(), orjson.dumps(event))
            )
            self.events.append(event)
            self.sent.append(time.monotonic())
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def places(self) -> AsyncIterator[int]:
        """Yield the place of every event from now on."""
        place = len(self.events)
        while True:
            if place == len(self.events):
                await self._changed.wait()
            yield place
            place += 1


def create_app(rate: float) -> FastAPI:
    source = Source()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        producing = asyncio.create_task(source.produce(rate))
        yield
        producing.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/sent")
    async def sent() -> list[float]:
        return source.sent

    @app.get("/native", response_class=EventSourceResponse)
    async def native() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(comment="hello")
        async for place in source.places():
            event = source.events[place]
            yield ServerSentEvent(data=event, event=KIND, id=str(event["seq"]))

    @app.get("/plain")
    async def plain() -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b": hello\n\n"
            async for place in source.places():
                yield source.encoded[place]

        return StreamingResponse(chunks(), media_type="text/event-stream")

    if find_spec("sse_starlette") is not None:
        _add_sse_starlette(app, source)
    return app


def _add_sse_starlette(app: FastAPI, source: Source) -> None:
    from sse_starlette import EventSourceResponse as SseStarlette  # noqa: PLC0415 - not always installed

    @app.get("/sse-starlette", response_model=None)
    async def sse_starlette() -> Response:
        async def events() -> AsyncIterator[dict[str, Any]]:
            yield {"comment": "hello"}
            async for place in source.places():
                event = source.events[place]
                yield {"data": orjson.dumps(event).decode(), "event": KIND, "id": str(event["seq"])}

        response: Response = SseStarlette(events())
        return response


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        create_app(float(sys.argv[1])), loop="asyncio", http="httptools", log_level="warning"
    )
    uvicorn.Server(config).run([listener])
