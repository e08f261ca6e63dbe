"""Server-sent events over httpx: parsed as the HTML standard says, reconnected where they were cut off.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import codecs
import io
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
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


class _NothingFollowsError(Exception):
    """The service knows that the last event has been received: 204, do not reconnect."""


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
    parser = EventParser(last_event_id)
    failures = 0
    while failures < attempts:
        parser.reset()
        newest, before = "", parser.last_event_id
        try:
            for event in _connection(client, url, params, parser):
                newest = event.type
                if newest in {"error", "stream.interrupted"}:  # as if the line had broken
                    break
                failures = 0
                yield event
            if newest in LAST_EVENT_TYPES:  # elsewhere in the sequence it means that the job was retried
                return
        except _NothingFollowsError:
            return
        except (httpx.TransportError, ServiceUnavailableError):
            pass  # counted below, like an end that came too early
        if newest == "stream.interrupted" and parser.last_event_id != before:
            continue
        failures += 1
        time.sleep(_pause(failures, parser.retry_seconds))
    raise ServiceUnavailableError(
        f"{url}: no event in {attempts} connections in a row; is the service running?"
    )


def _connection(
    client: httpx.Client, url: str, params: Mapping[str, str] | None, parser: EventParser
) -> Iterator[ServerSentEvent]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if parser.last_event_id:
        headers["Last-Event-ID"] = parser.last_event_id
    timeout = httpx.Timeout(10.0, read=SILENCE_SECONDS)
    with client.stream("GET", url, params=params, headers=headers, timeout=timeout) as response:
        if response.status_code in RETRYABLE_STATUSES:
            raise ServiceUnavailableError(f"{url} answered {response.status_code}")
        response.raise_for_status()
        if response.status_code == HTTPStatus.NO_CONTENT:
            raise _NothingFollowsError
        for chunk in response.iter_bytes():
            yield from parser.feed(chunk)


def _pause(failures: int, retry_seconds: float | None) -> float:
    """Seconds before the next connection: doubling, and never in step with other clients."""
    longest = min(MAX_PAUSE_SECONDS, (retry_seconds or 0.1) * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter is no secret
