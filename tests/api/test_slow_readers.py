"""Readers of streams that are slow, dead or gone: cut off and forgotten, and nobody else notices."""

import asyncio
import math
import time
from contextlib import ExitStack, closing

import httpx
import pytest
from tests.api.conftest import SPEC, STREAM, serving
from tests.api.test_stream import Crowd, connect, wait_for

from epochd.api import feed as feed_module
from epochd.api.app import create_app
from epochd.api.feed import Ring
from epochd.api.stream import Cursor, Frame
from epochd.client.events import EventParser, parse
from epochd.store import events

SEND_BUFFER = 8192
EVENT = "x" * 20_000


# What happens here is between sockets: on Postgres it is part of the long proofs.
@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.torture)])
def database_kind(request):
    return request.param


@pytest.fixture
def serve(settings):
    """Serve with so much patience and small buffers; gives the server, a client and the id of a queued job."""
    with ExitStack() as running:

        def start(patience, **changes):
            changed = settings.model_copy(update={"slow_reader_seconds": patience, **changes})
            server = running.enter_context(serving(create_app(changed), SEND_BUFFER))
            client = running.enter_context(httpx.Client(base_url=server.url, timeout=30))
            return server, client, client.post("/v1/jobs", json=SPEC).raise_for_status().json()["id"]

        yield start


def have_patience(server):
    """From now on it does not matter how slow this machine is."""
    for reader in readers(server):
        reader._patience = 60.0
        if reader._deadline < math.inf:
            reader._deadline += 60.0


def feed_of(server):
    return server.config.app.state.feed


def readers(server):
    return [
        user.listener for channel in list(feed_of(server)._channels.values()) for user in list(channel.users)
    ]


def is_empty(server):
    """Whether nothing of any stream is left: no reader, no task, no connection with its buffers."""
    state = server.server_state
    return not (feed_of(server)._channels or state.tasks or streams_of(state))


def streams_of(state):
    return [one for one in state.connections if one.cycle is not None and b"/events" in one.url]


def read_on(connection, turns=()):
    """Read to the end of an answer, at first one piece after each of the turns; give its messages."""
    received = bytearray()
    for _ in turns:
        received += connection.recv(1 << 10)
    while chunk := connection.recv(1 << 16):
        received += chunk
    assert received.endswith(b"0\r\n\r\n")
    return list(parse([unchunked(bytes(received))]))


def unchunked(raw):
    """The body of what comes in chunks; what precedes the first chunk was read before, up to somewhere in the head."""
    rest = raw.partition(b"\r\n\r\n")[2]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


def stream_from(client, job_id, last_id):
    answer = client.get(f"/v1/jobs/{job_id}/events", headers={**STREAM, "Last-Event-ID": last_id})
    return list(parse([answer.content]))


def assert_interrupted(messages):
    """Its last message says where to resume, which is behind all that it got; gives that."""
    *before, last = messages
    assert [int(message.id) for message in before] == list(range(1, len(before) + 1))
    assert last.type == "stream.interrupted"
    assert last.id == before[-1].id  # it has none of its own
    data = last.json()
    assert (data["code"], data["resume_after"]) == ("too_slow", before[-1].id)
    assert data["message"]
    return data["resume_after"]


def test_who_takes_nothing_is_cut_off_and_told_where_to_resume(serve, trainer):
    server, client, job_id = serve(patience=2.0)
    slow = connect(server, job_id)
    others = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 50)
    assert others.connected.wait(30)
    trainer.start()
    for _ in range(20):
        trainer.announce(text=EVENT)
    trainer.finish()
    # All others have everything while it takes nothing.
    assert {len(list(parse([body]))) for body in others.join()} == {23}
    wait_for(lambda: [reader.slow for reader in readers(server)] == [True])
    have_patience(server)
    messages = read_on(slow)
    slow.close()
    assert 1 < len(messages) < 23
    rest = stream_from(client, job_id, assert_interrupted(messages))
    assert [int(message.id) for message in rest] == list(range(len(messages), 24))
    wait_for(lambda: is_empty(server))


@pytest.mark.parametrize("ends", [False, True], ids=["the job goes on", "the job is done"])
@pytest.mark.parametrize("count", [3, 20], ids=["a little waits", "much waits"])
def test_who_never_reads_is_aborted(serve, trainer, count, ends):
    server, _, job_id = serve(patience=0.3)
    with closing(connect(server, job_id)) as dead:
        trainer.start()
        for _ in range(count):
            trainer.announce(text=EVENT)
        if ends:
            trainer.finish()
        wait_for(lambda: is_empty(server))
        # The end comes without the end of the stream: nobody takes it for whole.
        received = b""
        try:
            while chunk := dead.recv(1 << 16):
                received += chunk
        except ConnectionResetError:
            pass
        assert not received.endswith(b"0\r\n\r\n")


def test_who_was_up_to_date_and_lags_behind_is_cut_off_although_it_reads(serve, trainer, monkeypatch):
    monkeypatch.setattr(feed_module, "RING_FRAMES", 4)
    server, client, job_id = serve(patience=1.0)
    with closing(connect(server, job_id)) as lagging:
        wait_for(lambda: readers(server) and readers(server)[0].asleep)
        trainer.start()
        announce_at_once(trainer, 100)
        messages = read_on(lagging, until_it_ends(server))
    trainer.finish()
    rest = stream_from(client, job_id, assert_interrupted(messages))
    assert [int(message.id) for message in rest] == list(range(len(messages), 104))


def announce_at_once(trainer, count):
    with trainer.database.write() as tx:
        for _ in range(count):
            events.append(tx, trainer.number, "diagnosis.changed", {"text": EVENT})


def until_it_ends(server):
    """Yield, slowly, until the only stream of a server is being ended."""
    (reader,) = readers(server)
    while reader._deadline == math.inf:
        yield
        time.sleep(0.01)
    have_patience(server)


def test_who_takes_the_end_too_slowly_is_aborted_however_busily(serve, trainer):
    server, _, job_id = serve(patience=1.0)
    trainer.start()
    announce_at_once(trainer, 20)
    trainer.finish()
    with closing(connect(server, job_id)) as dripping:
        wait_for(lambda: readers(server))
        (reader,) = readers(server)
        for _ in until_it_ends(server):
            dripping.recv(1 << 16)
        assert reader._waiting()
        reader._patience = reader._deadline = reader._loop.time() + 0.5
        try:
            while readers(server) and dripping.recv(64):
                time.sleep(0.05)
        except ConnectionResetError:
            pass
        assert not reader.slow
        wait_for(lambda: is_empty(server))


def test_who_reads_history_may_take_its_time(serve, trainer):
    server, _, job_id = serve(patience=2.0)
    trainer.start()
    announce_at_once(trainer, 100)
    trainer.finish()
    with closing(connect(server, job_id)) as slow:
        messages = read_on(slow, slowly(seconds=3.0))
    assert [message.id for message in messages] == [str(seq) for seq in range(1, 104)]


def slowly(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.02)


def test_a_burst_beyond_the_ring_is_nobodys_fault(serve, trainer, monkeypatch):
    monkeypatch.setattr(feed_module, "RING_FRAMES", 4)
    server, _, job_id = serve(patience=2.0)
    readers_of_it = Crowd(f"{server.url}/v1/jobs/{job_id}/events", 5)
    assert readers_of_it.connected.wait(30)
    trainer.start()
    time.sleep(2.1)  # longer than the patience: they have been up to date all the while
    trainer.burst(60)
    trainer.finish()
    for body in readers_of_it.join():
        assert [int(message.id) for message in parse([body])] == list(range(1, 64))


def test_all_who_leave_are_forgotten(serve, trainer):
    server, _, job_id = serve(patience=30)
    before = len(asyncio.all_tasks(feed_loop(server, job_id)))
    gone = [connect(server, job_id, query) for query in ("", "?iterations=true") for _ in range(30)]
    wait_for(lambda: len(readers(server)) == 60)
    trainer.start()
    for one in gone:
        one.close()
    wait_for(lambda: is_empty(server))
    wait_for(lambda: len(asyncio.all_tasks(feed_of(server)._loop)) == before)


def feed_loop(server, job_id):
    """The loop of the server, which the feed knows from its first stream on."""
    connect(server, job_id).close()
    wait_for(lambda: is_empty(server))
    return feed_of(server)._loop


def test_a_shutdown_ends_hundreds_of_streams_cleanly(settings):
    app = create_app(settings)
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        job_id = client.post("/v1/jobs", json=SPEC).raise_for_status().json()["id"]
        crowd = [connect(server, job_id) for _ in range(300)]
        wait_for(lambda: len(readers(server)) == 300)
    for one in crowd:
        assert read_on(one)[-1].type == "job.queued"
        one.close()
    assert is_empty(server)


def test_a_shutdown_does_not_wait_for_the_dead(settings, trainer):
    app = create_app(settings)
    with serving(app, SEND_BUFFER) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        job_id = client.post("/v1/jobs", json=SPEC).raise_for_status().json()["id"]
        with closing(connect(server, job_id)):
            trainer.start()
            for _ in range(20):
                trainer.announce(text=EVENT)
            wait_for(lambda: any(reader._left for reader in readers(server)))
            app.state.feed.close()
            wait_for(lambda: is_empty(server))  # long before its own patience is at an end


def test_two_servers_of_one_database_send_the_same_bytes(settings, trainer):
    silent = settings.model_copy(update={"heartbeat_seconds": 300})  # a comment would be a difference
    with serving(create_app(silent)) as one, serving(create_app(silent)) as other:
        job_id = httpx.post(f"{one.url}/v1/jobs", json=SPEC).raise_for_status().json()["id"]
        path = f"/v1/jobs/{job_id}/events"
        crowds = [Crowd(server.url + path, 10) for server in (one, other)]
        assert all(crowd.connected.wait(30) for crowd in crowds)
        trainer.start()
        for _ in range(10):
            trainer.burst(3)
        trainer.finish()
        first, second = (set(crowd.join()) for crowd in crowds)
    assert first == second
    (body,) = first
    assert [int(message.id) for message in parse([body])] == list(range(1, 34))


def test_who_was_cut_off_by_one_server_goes_on_at_another(settings, trainer):
    with serving(create_app(settings)) as one, serving(create_app(settings)) as other:
        job_id = httpx.post(f"{one.url}/v1/jobs", json=SPEC).raise_for_status().json()["id"]
        parser, got = EventParser(), []
        trainer.start()
        trainer.burst(3)
        trainer.finish()
        for server in (one, other, one, other, one, other):
            headers = STREAM | ({"Last-Event-ID": parser.last_event_id} if got else {})
            with httpx.stream("GET", f"{server.url}/v1/jobs/{job_id}/events", headers=headers) as answer:
                parser.reset()
                found = [message for chunk in answer.iter_bytes() for message in parser.feed(chunk)]
            got += found[:1]
            parser.last_event_id = got[-1].id
    assert [message.id for message in got] == ["1", "2", "3", "4", "5", "6"]


class TestRing:
    """What readers at one place are sent is put together once."""

    def frames(self, count, size=100):
        return [Frame(Cursor(n), Cursor(n + 1), b"x" * size) for n in range(count)]

    def test_all_at_one_place_get_the_same_object(self):
        ring = Ring(Cursor(0), iterations=False)
        ring.extend(self.frames(3), Cursor(3))
        chunk = ring.since(Cursor(0))
        assert (len(chunk.data), chunk.after) == (300, Cursor(3))
        assert ring.since(Cursor(0)).data is chunk.data
        assert len(ring.since(Cursor(2)).data) == 100
        assert ring.since(Cursor(3))[:3] == (b"", Cursor(3), False)

    def test_new_frames_are_not_hidden_by_what_was_put_together(self):
        ring = Ring(Cursor(0), iterations=False)
        first, *rest = self.frames(3)
        ring.extend([first], Cursor(1))
        assert len(ring.since(Cursor(0)).data) == 100
        ring.extend(rest, Cursor(3))
        assert len(ring.since(Cursor(0)).data) == 300

    def test_much_comes_in_parts(self):
        ring = Ring(Cursor(0), iterations=False)
        ring.extend(self.frames(10, 30_000), Cursor(10))
        cursor, sizes = Cursor(0), []
        while cursor < Cursor(10):
            chunk = ring.since(cursor)
            sizes.append(len(chunk.data))
            cursor = chunk.after
        assert sizes == [90_000, 90_000, 90_000, 30_000]

    def test_a_frame_that_is_larger_than_a_part_comes_whole(self):
        ring = Ring(Cursor(0), iterations=False)
        ring.extend(self.frames(2, 1_000_000), Cursor(2))
        assert ring.since(Cursor(0))[1:] == (Cursor(1), False, b"")

    def test_what_was_dropped_is_not_there(self, monkeypatch):
        monkeypatch.setattr(feed_module, "RING_FRAMES", 4)
        ring = Ring(Cursor(0), iterations=False)
        ring.extend(self.frames(6), Cursor(6))
        assert ring.since(Cursor(1)) is None
        assert len(ring.since(Cursor(2)).data) == 400
