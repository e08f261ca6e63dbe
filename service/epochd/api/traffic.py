"""How fast this process answers, and who waits for it: measured around the application, in microseconds a request.

The time of a request is that until its answer begins, so that a stream counts with what its opening took, and not with
how long somebody listened. A long-poll that has waited is not timed, unless it failed: how long it takes is for its
caller to say.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Annotated, Final

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
OTHER: Final = "other"
"""The label of everything that has no name of its own, so that no caller can make up labels."""
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_PREFIX: Final = "/v1"
_WAITED: Final = "epochd.waited"
_AS_ASKED: Final = frozenset({200, 304})
_STREAM: Final = b"text/event-stream"
_ERROR: Final = 500


class Traffic:
    """What is measured. With ``registry`` None it is for prometheus_client's files that several processes share."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._seconds = Histogram(
            "epochd_http_request_duration_seconds",
            "Time until an answer began; long-polls that waited and did not fail are not in it.",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.streams = Gauge(
            "epochd_stream_subscribers",
            "Event streams that are open.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.long_polls = Gauge(
            "epochd_long_polls",
            "Requests that wait for a job.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        # Finding a histogram by its labels takes longer than all else here.
        self._known: dict[tuple[str, str, int], Histogram] = {}

    @contextmanager
    def long_poll(self, scope: Scope) -> Iterator[None]:
        """Count a request that waits, as long as the block lasts."""
        scope[_WAITED] = True
        with self.long_polls.track_inprogress():
            yield

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that is answered."""
        if _WAITED in scope and status in _AS_ASKED:
            return
        method = scope["method"] if scope["method"] in _METHODS else OTHER
        key = (_template(scope), method, status)
        histogram = self._known.get(key)
        if histogram is None:
            histogram = self._known[key] = self._seconds.labels(method, key[0], str(status))
        histogram.observe(seconds)


async def get_traffic(request: Request) -> Traffic:
    """Give what is measured of this process."""
    traffic = request.app.state.exposition.traffic
    assert isinstance(traffic, Traffic)
    return traffic


TrafficDep = Annotated[Traffic, Depends(get_traffic)]


def _template(scope: Scope) -> str:
    """Name the route of a request as the OpenAPI document does: FastAPI's routes do not know what they are below."""
    path = getattr(scope.get("route"), "path", None)
    if path is None:
        return OTHER
    below = scope["path"].startswith(f"{_PREFIX}/") and not path.startswith(f"{_PREFIX}/")
    return f"{_PREFIX}{path}" if below else str(path)


class Meter:
    """ASGI middleware around everything else: measures each request."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self.app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self._traffic, scope, send)
        try:
            await self.app(scope, receive, exchange.send)
        except Exception:
            exchange.failed()
            raise
        finally:
            exchange.end()


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_began", "_scope", "_send", "_started", "_streams", "_traffic")

    def __init__(self, traffic: Traffic, scope: Scope, send: Send) -> None:
        self._traffic = traffic
        self._scope = scope
        self._send = send
        self._started = self._streams = False
        self._began = perf_counter()

    async def send(self, message: Message) -> None:
        if not self._started:
            self._start(message)
        await self._send(message)

    def _start(self, message: Message) -> None:
        self._answered(message["status"])
        if (b"content-type", _STREAM) in [
            (name, value[: len(_STREAM)]) for name, value in message["headers"]
        ]:
            self._streams = True
            self._traffic.streams.inc()

    def _answered(self, status: int) -> None:
        self._started = True
        self._traffic.observe(self._scope, status, perf_counter() - self._began)

    def failed(self) -> None:
        """Count the answer that is sent further out for an error that nobody foresaw."""
        if not self._started:
            self._answered(_ERROR)

    def end(self) -> None:
        if self._streams:
            self._traffic.streams.dec()
