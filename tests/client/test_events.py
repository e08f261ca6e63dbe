"""The event reader: parsed as the standard says, and reconnected without a gap or a repeat."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.client import events as client_events
from epochd.client.events import EventParser, ServerSentEvent, parse, read_events
from epochd.errors import ServiceUnavailableError

STREAM = (
    b"\xef\xbb\xbfretry: 20\n\n"
    b": heartbeat\n\n"
    b'id: 1\nevent: job.queued\ndata: {"seq": 1}\n\n'
    b"event: iterations\r\ndata:first\r\ndata: second\r\n\r\n"
    b"data\rid: 7\r\r"
    b"event: no data, no message\n\n"
    b"unknown: field\ndata: a\xe2\x80\xa8b\xc3\xa4\n\n"
    b"id: 8\ndata: unfinished\n"
)
MESSAGES = [
    ServerSentEvent("job.queued", '{"seq": 1}', "1"),
    ServerSentEvent("iterations", "first\nsecond", "1"),
    ServerSentEvent("message", "", "7"),
    ServerSentEvent("message", "a\u2028b\u00e4", "7"),
]


def test_a_stream_is_read_as_the_standard_says():
    assert list(parse([STREAM])) == MESSAGES


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(places: list[int]):
    cuts = [0, *sorted(places), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(cuts)]
    assert list(parse(chunks)) == MESSAGES


def test_every_byte_alone():
    assert list(parse(bytes([byte]) for byte in STREAM)) == MESSAGES


def test_a_message_that_was_cut_off_leaves_nothing_behind():
    parser = EventParser()
    assert list(parser.feed(b"id: 1\ndata: whole\n\nid: 2\nevent: x\ndata: ha")) == [
        ServerSentEvent("message", "whole", "1")
    ]
    parser.reset()
    assert parser.last_event_id == "1"
    assert list(parser.feed(b"data: next\n\n")) == [ServerSentEvent("message", "next", "1")]


def test_an_id_with_a_null_and_a_retry_that_is_no_number_are_ignored():
    parser = EventParser()
    assert list(parser.feed(b"id: 3\nretry: 250\ndata: a\n\nid: 4\0\nretry: soon\ndata: b\n\n")) == [
        ServerSentEvent("message", "a", "3"),
        ServerSentEvent("message", "b", "3"),
    ]
    assert parser.retry_seconds == 0.25


def message(seq: int, kind: str = "epoch.completed") -> bytes:
    return f'id: {seq}\nevent: {kind}\ndata: {{"seq": {seq}}}\n\n'.encode()


Answer = Callable[[str | None], tuple[int, bytes]]


@contextmanager
def server(*answers: Answer) -> Iterator[tuple[str, list[str | None]]]:
    """Answer the n-th request by the n-th of ``answers``, which sees its Last-Event-ID, then cut the line."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Last-Event-ID"))
            status, body = answers[min(len(asked), len(answers)) - 1](asked[-1])
            self.send_response(status)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/events", asked
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def events_of(url: str, **options: Any) -> list[ServerSentEvent]:
    with httpx.Client() as client:
        return list(read_events(client, url, **options))


def test_a_job_that_was_retried_is_read_beyond_its_end():
    history = [
        message(1, "job.queued"),
        message(2, "job.failed"),
        message(3, "job.queued"),
        message(4, "job.succeeded"),
    ]

    def cut_after(count: int) -> Answer:
        return lambda last: (200, b"retry: 1\n\n" + b"".join(history[int(last or 0) :][:count]))

    with server(cut_after(3), cut_after(9)) as (url, asked):
        assert [event.id for event in events_of(url)] == ["1", "2", "3", "4"]
    assert asked == [None, "3"]


def test_a_stream_that_breaks_is_taken_up_where_it_broke():
    history = [message(seq) for seq in range(1, 9)] + [message(9, "job.succeeded")]

    def cut_after(count: int, stump: bytes) -> Answer:
        return lambda last: (200, b"retry: 1\n\n" + b"".join(history[int(last or 0) :][:count]) + stump)

    answers = [
        cut_after(3, b"id: 4\ndata: {"),
        cut_after(0, b""),
        cut_after(2, b"id: 6\n"),
        cut_after(99, b""),
    ]
    with server(*answers) as (url, asked):
        assert [event.json()["seq"] for event in events_of(url)] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert asked == [None, "3", "3", "5"]


def test_it_begins_behind_the_given_event_and_ends_with_the_last_one():
    # The stream ended behind it, so nothing follows: no second connection asks.
    with server(lambda _last: (200, message(5, "job.cancelled"))) as (url, asked):
        assert [event.type for event in events_of(url, last_event_id="4")] == ["job.cancelled"]
    assert asked == ["4"]


def test_a_service_that_says_that_nothing_follows_is_believed():
    with server(lambda _last: (204, b"")) as (url, asked):
        assert events_of(url, last_event_id="9") == []
    assert asked == ["9"]


def test_an_error_in_the_stream_counts_as_a_connection_that_brought_nothing():
    fail: Answer = lambda _last: (200, b'retry: 1\n\nevent: error\ndata: {"status": 500}\n\n')  # noqa: E731
    with server(fail, lambda _last: (200, message(1, "job.failed"))) as (url, asked):
        assert [event.type for event in events_of(url)] == ["job.failed"]
    assert len(asked) == 2
    with server(fail) as (url, asked), pytest.raises(ServiceUnavailableError):
        events_of(url, attempts=3)
    assert len(asked) == 3


def away(_last: str | None) -> tuple[int, bytes]:
    return 503, b""


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_service_that_is_away_is_asked_again(status: int):
    with server(lambda _last: (status, b""), lambda _last: (200, message(1, "job.failed"))) as (url, asked):
        assert len(events_of(url)) == 1
    assert len(asked) == 2


@pytest.mark.parametrize("status", [401, 404, 422, 500])
def test_a_refusal_is_raised_at_once(status: int):
    with (
        server(lambda _last: (status, b"{}")) as (url, asked),
        pytest.raises(httpx.HTTPStatusError) as caught,
    ):
        events_of(url)
    assert caught.value.response.status_code == status
    assert len(asked) == 1


def test_it_gives_up_after_so_many_connections_that_brought_nothing():
    # A message between two failures begins the count anew.
    with (
        server(away, lambda _last: (200, b"retry: 1\n\n" + message(1)), away) as (url, asked),
        pytest.raises(ServiceUnavailableError, match="3 connections in a row"),
    ):
        events_of(url, attempts=3)
    assert len(asked) == 4


def test_a_reader_that_was_cut_off_for_being_slow_goes_on_at_once(monkeypatch: pytest.MonkeyPatch):
    cut = b'event: stream.interrupted\ndata: {"code": "too_slow", "resume_after": "2"}\n\n'
    monkeypatch.setattr(client_events.time, "sleep", lambda _: pytest.fail("it waited"))
    with server(
        lambda _last: (200, message(1) + message(2) + cut),
        lambda _last: (200, message(3) + cut),
        lambda _last: (200, message(4, "job.succeeded")),
    ) as (url, asked):
        assert [event.id for event in events_of(url)] == ["1", "2", "3", "4"]
    assert asked == [None, "2", "3"]


def test_being_cut_off_again_and_again_without_an_event_is_a_failure():
    cut = b'retry: 1\n\nevent: stream.interrupted\ndata: {"code": "too_slow", "resume_after": "0"}\n\n'
    with server(lambda _last: (200, cut)) as (url, asked), pytest.raises(ServiceUnavailableError):
        events_of(url, attempts=3)
    assert len(asked) == 3
