"""Server-sent events over a real server: nothing missed, nothing twice, nobody held back."""

import asyncio
import json
import socket
import threading
import time

import httpx
import pytest
from tests.api.conftest import STREAM, Trainer, serving

from epochd.api import feed as feed_module
from epochd.api import stream as stream_module
from epochd.api.app import create_app
from epochd.client.events import parse
from epochd.store import jobs


@pytest.fixture
def job_id(submit):
    return submit()


@pytest.fixture
def finished(job_id, trainer):
    """A job of two attempts, the first of which was lost."""
    trainer.start().iterate(7)
    trainer.iterate(3)
    trainer.complete_epoch()
    trainer.announce()
    trainer.iterate(4)
    trainer.lose()
    trainer.start().iterate(10)
    trainer.complete_epoch()
    trainer.burst(3)
    trainer.iterate(5)
    trainer.finish()
    return job_id


@pytest.fixture
def resumed(job_id, trainer, http):
    """A job that was lost, went on from its checkpoint, was paused, went on, failed and was retried."""
    trainer.start().iterate(10)
    trainer.complete_epoch()
    trainer.iterate(4)
    trainer.lose()
    trainer.resume(10).iterate(10)
    trainer.complete_epoch()
    trainer.iterate(5)
    http.post(f"/v1/jobs/{job_id}/pause").raise_for_status()
    trainer.finish("paused")
    http.post(f"/v1/jobs/{job_id}/resume").raise_for_status()
    trainer.resume(25, saved_by=2)
    trainer.lose()
    trainer.resume(25, saved_by=2).iterate(3)
    trainer.finish("failed")
    http.post(f"/v1/jobs/{job_id}/retry").raise_for_status()
    trainer.resume(20, saved_by=2).iterate(10)
    trainer.complete_epoch()
    trainer.burst(1)
    trainer.finish()
    return job_id


TYPES = [
    "job.queued",
    "job.started",
    "epoch.completed",
    "diagnosis.changed",
    "attempt.lost",
    "job.started",
    "epoch.completed",
    *["epoch.completed"] * 3,
    "job.succeeded",
]


def iterations(messages):
    """List every (attempt, iteration) of the messages, checking that the columns belong to it."""
    found = []
    for message in messages:
        if message.type == "iterations":
            data = message.json()
            columns = data["columns"]
            assert len({len(values) for values in columns.values()}) == 1
            expected = [data["attempt"] * 1_000_000 + iteration for iteration in columns["iteration"]]
            assert columns["train_loss"] == expected
            found += [(data["attempt"], iteration) for iteration in columns["iteration"]]
    return found


def events_of(messages):
    return [message.json() for message in messages if message.type != "iterations"]


ALL = [(1, iteration) for iteration in range(1, 15)] + [(2, iteration) for iteration in range(1, 46)]


def test_the_stream_tells_what_the_pages_tell(finished, read_stream, http):
    messages = read_stream(finished)
    assert [message.type for message in messages] == TYPES
    assert [message.id for message in messages] == [str(seq) for seq in range(1, len(TYPES) + 1)]
    page = http.get(f"/v1/jobs/{finished}/events").json()
    assert events_of(messages) == page["data"]
    assert page["next"] is None


def test_pages_of_events(finished, http):
    first = http.get(f"/v1/jobs/{finished}/events", params={"limit": 8}).json()
    second = http.get(f"/v1/jobs/{finished}/events", params={"limit": 8, "after": first["next"]}).json()
    assert [event["seq"] for page in (first, second) for event in page["data"]] == list(range(1, 12))
    assert (first["next"], second["next"]) == (8, None)
    assert first["newest"] == second["newest"] == len(TYPES)


def test_pages_of_events_of_some_types(finished, http):
    def page(**params):
        return http.get(f"/v1/jobs/{finished}/events", params=params).json()

    wanted = ["job.started", "epoch.completed"]
    everything = page(limit=200)["data"]
    assert page(limit=200, type=wanted)["data"] == [one for one in everything if one["type"] in wanted]
    first = page(limit=1, type="job.started")
    assert (first["next"], first["newest"]) == (first["data"][0]["seq"], len(TYPES))
    assert [one["type"] for one in page(type="job.started", after=first["next"])["data"]] == ["job.started"]


def test_types_are_chosen_of_pages_only(finished, http):
    path = f"/v1/jobs/{finished}/events"
    answer = http.get(path, params={"type": "job.started"}, headers=STREAM)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "pages_only")
    answer = http.get(path, params={"type": "job.begun"})
    assert (answer.status_code, answer.json()["errors"][0]["param"]) == (422, "type")


def test_headers(finished, http):
    with http.stream("GET", f"/v1/jobs/{finished}/events", headers=STREAM) as answer:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        body = answer.read()
    assert body.startswith(b"retry: ")


@pytest.mark.parametrize("with_iterations", [False, True])
@pytest.mark.parametrize("history", ["finished", "resumed"])
def test_cut_off_after_any_message_the_rest_comes(request, read_stream, history, with_iterations):
    job_id = request.getfixturevalue(history)
    whole = read_stream(job_id, iterations=with_iterations)
    assert len(whole) >= len(TYPES)
    for place, message in enumerate(whole):
        rest = read_stream(job_id, last_id=message.id, iterations=with_iterations)
        assert events_of(whole[: place + 1]) + events_of(rest) == events_of(whole), message.id
        assert iterations(whole[: place + 1]) + iterations(rest) == iterations(whole), message.id


def test_iterations_precede_the_event_that_follows_them(finished, read_stream):
    messages = read_stream(finished, iterations=True)
    assert iterations(messages) == ALL
    assert [event["type"] for event in events_of(messages)] == TYPES
    sent = {0: 0, 1: 0, 2: 0}
    attempt = 0
    for message in messages:
        if message.type == "iterations":
            attempt = message.json()["attempt"]
            sent[attempt] = message.json()["columns"]["iteration"][-1]
        elif message.type == "epoch.completed":
            assert sent[attempt] >= message.json()["data"]["epoch"] * 10
    assert sent == {0: 0, 1: 14, 2: 45}
    # Iterations of several short epochs come together: those events say so in their ids, the last need not.
    assert [message.id for message in messages if message.type == "epoch.completed"][-1] == "10-45"
    assert messages[-1].id == "11"


RESUMED = [
    *((1, iteration) for iteration in range(1, 15)),
    *((2, iteration) for iteration in range(11, 26)),
    *((4, iteration) for iteration in range(26, 29)),
    *((5, iteration) for iteration in range(21, 41)),
]


def test_what_a_resumed_attempt_trained_comes_under_its_own_number(resumed, read_stream):
    messages = read_stream(resumed, iterations=True)
    assert iterations(messages) == RESUMED
    assert events_of(messages) == events_of(read_stream(resumed))


def test_a_job_that_is_retried_goes_on_behind_its_last_event(resumed, read_stream):
    kinds = [message.type for message in read_stream(resumed)]
    failed = kinds.index("job.failed")
    assert kinds[failed:] == [
        "job.failed",
        "job.queued",
        "job.started",
        "checkpoint.restored",
        "epoch.completed",
        "epoch.completed",
        "job.succeeded",
    ]


def test_a_retried_job_is_streamed_although_it_was_done(job_id, trainer, read_stream, http):
    trainer.start().iterate(5)
    trainer.finish("failed")
    before = read_stream(job_id)
    assert before[-1].type == "job.failed"
    over = http.get(f"/v1/jobs/{job_id}/events", headers={**STREAM, "Last-Event-ID": before[-1].id})
    assert over.status_code == 204
    http.post(f"/v1/jobs/{job_id}/retry", json={"from": "scratch"}).raise_for_status()
    # It has not begun again, and no stream ends: neither a new one, nor one that knows all but the newest event.
    assert [message.type for message in read_stream(job_id, stop=4)][2:] == ["job.failed", "job.queued"]
    assert [message.type for message in read_stream(job_id, last_id=before[-1].id, stop=1)] == ["job.queued"]
    trainer.start().iterate(5)
    trainer.finish()
    rest = read_stream(job_id, last_id=before[-1].id, iterations=True)
    assert [message.type for message in rest][-1] == "job.succeeded"
    assert iterations(rest) == [(2, iteration) for iteration in range(1, 6)]


def test_long_series_come_in_pieces_that_resume_anywhere(job_id, trainer, read_stream, monkeypatch):
    monkeypatch.setattr(stream_module, "ITERATIONS_PER_MESSAGE", 100)
    trainer.start().iterate(2500)
    trainer.complete_epoch()
    trainer.finish()
    whole = read_stream(job_id, iterations=True)
    assert iterations(whole) == [(1, iteration) for iteration in range(1, 2501)]
    assert (
        max(len(message.json()["columns"]["iteration"]) for message in whole if message.type == "iterations")
        == 100
    )
    for place in range(1, len(whole), 5):
        rest = read_stream(job_id, last_id=whole[place].id, iterations=True)
        assert iterations(whole[: place + 1]) + iterations(rest) == iterations(whole)
    assert read_stream(job_id, last_id="2-1234", iterations=True)[0].json()["columns"]["iteration"][0] == 1235


def test_a_live_stream_cut_off_again_and_again_misses_nothing(job_id, database, read_stream):
    """A client that reconnects after every few messages, while the job runs through two attempts."""
    trainer = Trainer(database)

    def train():
        trainer.start()
        for _ in range(6):
            trainer.iterate(9)
            trainer.burst(2)
            time.sleep(0.02)
        trainer.lose()
        trainer.resume(100)
        for _ in range(6):
            trainer.iterate(50)
            trainer.complete_epoch()
            time.sleep(0.05)
        trainer.finish()

    thread = threading.Thread(target=train)
    thread.start()
    got, last_id = [], None
    while not got or got[-1].type != "job.succeeded":
        got += read_stream(job_id, last_id=last_id, stop=len(got) % 3 + 1, iterations=True)
        last_id = got[-1].id
    thread.join()
    assert events_of(got) == events_of(read_stream(job_id))
    expected = [(1, one) for one in range(1, 6 * 29 + 1)] + [(2, one) for one in range(101, 401)]
    assert iterations(got) == expected


def test_iterations_come_a_few_times_a_second_however_fast_they_are(job_id, trainer, read_stream, app):
    trainer.start()
    ended = threading.Event()

    def train():
        for _ in range(60):
            trainer.burst(1)
            time.sleep(0.01)
        ended.set()
        trainer.finish()

    thread = threading.Thread(target=train)
    began = time.monotonic()
    thread.start()
    got = read_stream(job_id, iterations=True)
    seconds = time.monotonic() - began
    thread.join()
    assert iterations(got) == [(1, one) for one in range(1, 601)]
    messages = [message for message in got if message.type == "iterations"]
    # One more at the beginning, and one at the end.
    assert len(messages) <= seconds / feed_module.ITERATIONS_EVERY_SECONDS + 3


def test_ids_that_are_none(finished, http):
    for event_id in ("x", "-1", "1-", "1.5", "99", "9" * 30, "1-x"):
        for headers, params in (({"Last-Event-ID": event_id}, {}), ({}, {"after": event_id})):
            answer = http.get(f"/v1/jobs/{finished}/events", headers=STREAM | headers, params=params)
            assert answer.status_code == 422, event_id
            assert [error["param"] for error in answer.json()["errors"]] == ["after"]


def test_the_header_wins(finished, read_stream):
    assert [message.id for message in read_stream(finished, last_id="10", after="2")] == ["11"]
    assert [message.id for message in read_stream(finished, after="9")] == ["10", "11"]


def test_nothing_follows_the_last_event(finished, http):
    answer = http.get(f"/v1/jobs/{finished}/events", headers={**STREAM, "Last-Event-ID": "11"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_errors_before_the_stream_are_problems(http, job_id):
    answer = http.get("/v1/jobs/job_none/events", headers=STREAM)
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    answer = http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    answer = http.get(f"/v1/jobs/{job_id}/events", params={"iterations": True})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "streams_only")


class Crowd:
    """Many subscribers on one thread, each reading to the end of its stream."""

    def __init__(self, url, count):
        self.bodies = {}
        self.connected = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(url, count)))
        self._thread.start()

    def join(self):
        self._thread.join(60)
        assert not self._thread.is_alive(), "the streams did not end"
        return list(self.bodies.values())

    async def _run(self, url, count):
        limits = httpx.Limits(max_connections=None)
        begun = []
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def read(one):
                async with client.stream("GET", url, headers=STREAM) as answer:
                    chunks = answer.aiter_bytes()
                    self.bodies[one] = await anext(chunks)
                    begun.append(one)
                    if len(begun) == count:
                        self.connected.set()
                    async for chunk in chunks:
                        self.bodies[one] += chunk

            await asyncio.gather(*(read(one) for one in range(count)))


def test_two_hundred_subscribers_get_the_same_bytes(job_id, trainer, server, app):
    crowd = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 200)
    assert crowd.connected.wait(30)
    trainer.start()
    for _ in range(30):
        trainer.burst(5)
    trainer.finish()
    bodies = crowd.join()
    assert len(bodies) == 200
    (body,) = {body.replace(stream_module.HEARTBEAT, b"") for body in bodies}
    messages = list(parse([body]))
    assert [int(message.id) for message in messages] == list(range(1, 1 + 2 + 150 + 1))
    wait_for(lambda: not app.state.feed._channels)


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connect(server, job_id, query=""):
    """Open a stream by hand, with a small receive buffer, and read no further than its head."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    request = f"GET /v1/jobs/{job_id}/events{query} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
    connection.sendall(request.encode())
    assert connection.recv(64).startswith(b"HTTP/1.1 200")
    return connection


def test_a_slow_reader_delays_nobody_and_misses_nothing(job_id, trainer, server, read_stream):
    slow = connect(server, job_id)
    wait_for(lambda: server.config.app.state.feed._channels)
    trainer.start()
    filler = "x" * 20_000
    for _ in range(400):  # 8 MB: far beyond the socket's buffers and the ring
        trainer.announce(text=filler)
    trainer.finish()
    others = read_stream(job_id)
    assert len(others) == 403
    received = bytearray()
    while chunk := slow.recv(1 << 20):
        received += chunk
        if b"event: job.succeeded" in received[-2000:]:
            break
    slow.close()
    ids = [line[4:] for line in bytes(received).split(b"\n") if line.startswith(b"id: ")]
    assert ids == [b"%d" % seq for seq in range(1, 404)]


def test_a_slow_reader_sees_a_job_done_and_retried(job_id, trainer, server, http):
    slow = connect(server, job_id)
    wait_for(lambda: server.config.app.state.feed._channels)
    trainer.start()
    for _ in range(200):
        trainer.announce(text="x" * 20_000)
    trainer.finish("failed")
    http.post(f"/v1/jobs/{job_id}/retry").raise_for_status()
    trainer.start()
    for _ in range(400):  # so that what it reads next does not all come in one page
        trainer.announce()
    trainer.finish()
    received = bytearray()
    while chunk := slow.recv(1 << 20):
        received += chunk
        if received.endswith(b"0\r\n\r\n"):  # the stream has ended, not just a message
            break
    slow.close()
    ids = [line[4:] for line in bytes(received).split(b"\n") if line.startswith(b"id: ")]
    assert ids == [b"%d" % seq for seq in range(1, 607)]


def test_a_client_that_leaves_is_forgotten(job_id, server, app):
    connection = connect(server, job_id)
    wait_for(lambda: app.state.feed._channels)
    connection.close()
    wait_for(lambda: not app.state.feed._channels)


def test_heartbeats_while_nothing_happens(database_url, data_dir, settings, trainer):
    app = create_app(settings.model_copy(update={"heartbeat_seconds": 0.05}))
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        job_id = client.post("/v1/jobs", json={"dataset": "iris", "epochs": 1, "batch_size": 12}).json()["id"]
        seen = b""
        with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=STREAM) as answer:
            for chunk in answer.iter_bytes():
                seen += chunk
                if seen.count(b"\n: heartbeat\n\n") >= 3:
                    break
        assert [message.type for message in parse([seen])] == ["job.queued"]


def test_closing_the_feed_ends_every_stream_and_lets_the_server_stop(app, database_url):
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        job_id = client.post("/v1/jobs", json={"dataset": "iris", "epochs": 1, "batch_size": 12}).json()["id"]
        crowd = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 20)
        assert crowd.connected.wait(30)
        app.state.feed.close()
        bodies = crowd.join()
        assert len(bodies) == 20
        assert all(b"event: error" not in body for body in bodies)
    # serving() has asserted that the server stopped, long before its graceful timeout would have cut it off.


def test_an_error_in_a_running_stream_is_told(job_id, read_stream, monkeypatch):
    def fail(*_arguments, **_named):
        raise RuntimeError("a secret")

    monkeypatch.setattr(stream_module, "read_page", fail)
    messages = read_stream(job_id)
    assert [message.type for message in messages] == ["error"]
    assert messages[0].json()["code"] == "internal_error"
    assert "secret" not in messages[0].data


def test_the_poller_survives_errors(job_id, trainer, monkeypatch, server):
    """What fails once is read again: no message is lost."""
    crowd = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 3)
    assert crowd.connected.wait(30)
    watch, failures = jobs.watch, []

    def fail_twice(tx, numbers):
        if threading.current_thread().name == "feed" and len(failures) < 2:
            failures.append(1)
            raise RuntimeError("away")
        return watch(tx, numbers)

    monkeypatch.setattr(feed_module.jobs, "watch", fail_twice)
    monkeypatch.setattr(feed_module, "RETRY_SECONDS", 0.01)
    trainer.start().iterate(5)
    trainer.finish()
    assert all([message.id for message in parse([body])] == ["1", "2", "3"] for body in crowd.join())
    assert len(failures) == 2


def test_a_job_that_cannot_be_read_harms_no_other(job_id, submit, database, monkeypatch, server):
    """Its streams are told after some attempts; those of the others go on meanwhile, and behind."""
    broken = submit()
    with database.read() as tx:
        number = jobs.get(tx, broken).number
    read_page = stream_module.read_page

    def fail(tx, job_number, *arguments, **named):
        if job_number == number and threading.current_thread().name == "feed":
            raise RuntimeError("a secret")
        return read_page(tx, job_number, *arguments, **named)

    monkeypatch.setattr(stream_module, "read_page", fail)
    monkeypatch.setattr(feed_module, "RETRY_SECONDS", 0.05)
    crowds = [Crowd(f"{server.url}/v1/jobs/{one}/events", 3) for one in (job_id, broken)]
    assert all(crowd.connected.wait(30) for crowd in crowds)
    trainer = Trainer(database)
    trainer.start().finish()
    whole, torn = (crowd.join() for crowd in crowds)
    assert [[message.type for message in parse([body])] for body in whole] == [
        ["job.queued", "job.started", "job.succeeded"]
    ] * 3
    for body in torn:
        last = list(parse([body]))[-1]
        assert (last.type, last.json()["code"]) == ("error", "internal_error")
        assert b"secret" not in body


def test_a_client_of_http_1_0_gets_no_chunk_sizes(finished, server, http):
    """Neither in a stream nor in any other answer of unknown length; those of a known one say it."""
    for path in (f"/v1/jobs/{finished}/events", f"/v1/jobs/{finished}"):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 30) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.0\r\nAccept: text/event-stream, application/json\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == http.get(path, headers={"Accept": "text/event-stream, application/json"}).content


def test_a_deleted_job_ends_its_streams(job_id, server, database):
    crowd = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 3)
    assert crowd.connected.wait(30)
    with database.write() as tx:
        jobs.delete(tx, job_id)
    assert all(b"event: error" not in body for body in crowd.join())


def test_events_are_json_on_one_line(job_id, trainer, http):
    trainer.start()
    trainer.announce(text="line one\nline two\r\u2028 — ✓")
    trainer.finish()
    answer = http.get(f"/v1/jobs/{job_id}/events", headers=STREAM)
    data = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: ")]
    assert data[2]["data"]["text"] == "line one\nline two\r\u2028 — ✓"
