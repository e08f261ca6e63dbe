"""Server-sent events over httpx: parsed as the HTML standard says, reconnected where they were cut off.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import asyncio
import codecs
import io
import json
import random
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httpx

from epochd.contract.events import LAST_EVENT_TYPES
from epochd.errors import ServiceUnavailableError

RETRYABLE_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
MAX_PAUSE_SECONDS = 5.0
SILENCE_SECONDS = 60.0
"""A stream that says nothing for so long is dead: the service sends a comment every 15 s."""
TIMEOUT = httpx.Timeout(10.0, read=SILENCE_SECONDS)


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One message of a stream; ``id`` is the last id seen up to it, and empty before the first."""

    type: str
    data: str
    id: str

    def json(self) -> Any:
        """Decode the data; raises ValueError when it is no JSON."""
        return json.loads(self.data)


def _new_decoder() -> io.IncrementalNewlineDecoder:
    """UTF-8 without its byte order mark; every kind of line end becomes a newline."""
    return io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), translate=True)


@dataclass(slots=True)
class EventParser:
    """Turns the bytes of a stream into messages, in whatever pieces they come.

    ``last_event_id`` and ``retry_seconds`` outlive a connection: pass the same parser on to the next one
    after ``reset()``.
    """

    last_event_id: str = ""
    retry_seconds: float | None = None
    _decoder: io.IncrementalNewlineDecoder = field(default_factory=_new_decoder)
    _line: str = ""
    _type: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str = ""

    def __post_init__(self) -> None:
        self._id = self.last_event_id

    def reset(self) -> None:
        """Forget the unfinished message of a connection that broke."""
        self._decoder, self._line = _new_decoder(), ""
        self._type, self._data, self._id = "", [], self.last_event_id

    def feed(self, chunk: bytes, *, final: bool = False) -> Iterator[ServerSentEvent]:
        """Yield the messages that ``chunk`` completes; ``final`` when nothing follows it."""
        for line in self._lines(self._decoder.decode(chunk, final)):
            if line:
                self._field(line)
            elif (message := self._dispatch()) is not None:
                yield message

    def _lines(self, text: str) -> Iterator[str]:
        # Not str.splitlines: it also splits at U+2028 and the like, which JSON may hold as they are.
        *lines, self._line = (self._line + text).split("\n")
        yield from lines

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._type = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry_seconds = int(value) / 1000

    def _dispatch(self) -> ServerSentEvent | None:
        self.last_event_id = self._id
        data, self._data = self._data, []
        kind, self._type = self._type or "message", ""
        return ServerSentEvent(kind, "\n".join(data), self.last_event_id) if data else None


def parse(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent]:
    """Yield the messages of one whole stream."""
    parser = EventParser()
    for chunk in chunks:
        yield from parser.feed(chunk)
    yield from parser.feed(b"", final=True)


class Following:
    """A job's events through lost connections: what each connection asks, and when there is nothing more to ask for.

    It does no input or output, so that blocking and asynchronous readers have one logic. For each connection:
    ``begin``, a request with ``headers()``, ``check`` its answer, ``feed`` it what comes, and ``end``.
    """

    def __init__(self, url: str, last_event_id: str = "", attempts: int = 8) -> None:
        self._url = url
        self._parser = EventParser(last_event_id)
        self._attempts = attempts
        self._failures = 0
        self._is_over = False
        self.begin()

    def begin(self) -> None:
        """Forget what a connection before left unfinished."""
        self._parser.reset()
        self._newest, self._before = "", self._parser.last_event_id
        self.is_cut_off = False

    def headers(self) -> dict[str, str]:
        """What to send: where the stream is to go on."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        return headers | ({"Last-Event-ID": self._before} if self._before else {})

    def check(self, response: httpx.Response) -> bool:
        """Look at the status; False when the service knows that the last event has been received.

        Raises ``httpx.HTTPStatusError`` when it refuses, and ServiceUnavailableError when it does so for now.
        """
        if response.status_code in RETRYABLE_STATUSES:
            raise ServiceUnavailableError(f"{self._url} answered {response.status_code}")
        response.raise_for_status()
        self._is_over = response.status_code == HTTPStatus.NO_CONTENT
        return not self._is_over

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """Yield what a chunk completes; nothing more of this connection counts once ``is_cut_off``."""
        for event in self._parser.feed(chunk):
            self._newest = event.type
            if event.type in {"error", "stream.interrupted"}:  # as if the line had broken
                self.is_cut_off = True
                return
            self._failures = 0
            yield event

    def end(self) -> float | None:
        """Seconds to wait before the next connection; None when the last event has come.

        Raises ServiceUnavailableError after so many ``attempts`` in a row that brought nothing.
        """
        # Elsewhere in the sequence the last event means that the job was retried.
        if self._is_over or self._newest in LAST_EVENT_TYPES:
            return None
        if self._newest == "stream.interrupted" and self._parser.last_event_id != self._before:
            return 0.0
        self._failures += 1
        if self._failures >= self._attempts:
            raise ServiceUnavailableError(
                f"{self._url}: no event in {self._attempts} connections in a row; is the service running?"
            )
        return pause(self._failures, self._parser.retry_seconds)


def read_events(
    client: httpx.Client,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    last_event_id: str = "",
    attempts: int = 8,
) -> Iterator[ServerSentEvent]:
    """Yield a job's events until it is done, through lost connections and restarts of the service.

    After a break it reconnects with ``Last-Event-ID``, so that what follows comes without a gap and without a
    repeat; at once, if the service has cut it off for having been slow. Raises ``httpx.HTTPStatusError`` when the
    service refuses (404, 401 …) and ServiceUnavailableError after ``attempts`` connections in a row that brought
    nothing.
    """
    following = Following(url, last_event_id, attempts)
    seconds: float | None = 0.0
    while seconds is not None:
        following.begin()
        # A line that breaks is counted like an end that came too early.
        with suppress(httpx.TransportError, ServiceUnavailableError):
            yield from _connection(client, url, params, following)
        seconds = following.end()
        if seconds:
            time.sleep(seconds)


def _connection(
    client: httpx.Client, url: str, params: Mapping[str, str] | None, following: Following
) -> Iterator[ServerSentEvent]:
    headers = following.headers()
    with client.stream("GET", url, params=params, headers=headers, timeout=TIMEOUT) as response:
        if not following.check(response):
            return
        for chunk in response.iter_bytes():
            yield from following.feed(chunk)
            if following.is_cut_off:
                return


async def read_events_async(
    client: httpx.AsyncClient,
    url: str,
    *,
    params: Mapping[str, str] | None = None,
    last_event_id: str = "",
    attempts: int = 8,
) -> AsyncGenerator[ServerSentEvent]:
    """Yield the same as ``read_events``, without blocking."""
    following = Following(url, last_event_id, attempts)
    seconds: float | None = 0.0
    while seconds is not None:
        following.begin()
        with suppress(httpx.TransportError, ServiceUnavailableError):
            async for event in _connection_async(client, url, params, following):
                yield event
        seconds = following.end()
        if seconds:
            await asyncio.sleep(seconds)


async def _connection_async(
    client: httpx.AsyncClient, url: str, params: Mapping[str, str] | None, following: Following
) -> AsyncGenerator[ServerSentEvent]:
    headers = following.headers()
    async with client.stream("GET", url, params=params, headers=headers, timeout=TIMEOUT) as response:
        if not following.check(response):
            return
        async for chunk in response.aiter_bytes():
            for event in following.feed(chunk):
                yield event
            if following.is_cut_off:
                return


def pause(failures: int, retry_seconds: float | None = None) -> float:
    """Seconds before the next try: doubling, and never in step with other clients."""
    longest = min(MAX_PAUSE_SECONDS, (retry_seconds or 0.1) * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
