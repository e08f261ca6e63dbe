"""Files of any length on a real server: cut off rather than torn, and nobody else waits for a slow reader."""

import io
import socket
import threading
import time
from http.client import HTTPResponse, IncompleteRead

import httpx
import numpy as np
import polars as pl
import pytest

from epochd.jobs import delete
from epochd.store import metrics
from epochd.store.metrics import Block

ITERATIONS = 140 * 1024
"""As CSV 8 MB: more than the buffers between server and client hold."""
FILES = ("csv", "ndjson", "parquet")


@pytest.fixture
def record(database):
    """Record iterations that compress badly."""

    def record_(attempt_id, iterations):
        random = np.random.default_rng(0)
        with database.write() as tx:
            for begin in range(0, iterations // 1024, 100):
                blocks = [
                    Block(number, *random.random((4, 1024), np.float32))
                    for number in range(begin, min(begin + 100, iterations // 1024))
                ]
                metrics.record_iterations(tx, attempt_id, 1000, blocks)

    return record_


@pytest.fixture
def job_id(submit, trainer, record):
    job_id = submit()
    record(trainer.start().claim.attempt_id, ITERATIONS)
    trainer.finish()
    return job_id


def open_slowly(server, job_id, kind="csv"):
    """Ask for a file and read nothing; the client takes little into its buffers."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    path = f"/v1/jobs/{job_id}/iterations?format={kind}"
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def until(true):
    """Wait until something has come true."""
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come true")


@pytest.fixture
def started(monkeypatch):
    """Count the parts that are read."""
    from epochd.api import download

    counts = {"parts": 0}
    run = download.FileThreads.run

    async def counted(self, *args, **kwargs):
        counts["parts"] += 1
        return await run(self, *args, **kwargs)

    monkeypatch.setattr(download.FileThreads, "run", counted)
    return counts


def settled(counts):
    """Tell that no part was read for a while."""

    def unchanged():
        before = counts["parts"]
        time.sleep(0.3)
        return counts["parts"] == before > 0

    return unchanged


@pytest.mark.parametrize("kind", FILES)
def test_a_long_file_is_whole(http, job_id, kind):
    with http.stream("GET", f"/v1/jobs/{job_id}/iterations", params={"format": kind}) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        content = answer.read()
    read = {"csv": pl.read_csv, "ndjson": pl.read_ndjson, "parquet": pl.read_parquet}[kind]
    frame = read(io.BytesIO(content))
    assert frame.height == ITERATIONS
    assert (frame["iteration"] == pl.Series(range(1, ITERATIONS + 1))).all()
    assert frame["train_loss"].sum() == pytest.approx(ITERATIONS / 2, rel=0.01)


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_job_deleted_in_the_middle_cuts_the_connection(
    server, job_id, database, settings, started, caplog, kind
):
    connection = open_slowly(server, job_id, kind)
    until(settled(started))
    delete.delete(database, job_id, settings.artifacts_dir, settings.checkpoints_dir)
    connection.settimeout(30)
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200
    with connection, answer, pytest.raises(IncompleteRead):
        answer.read()
    assert "a download was cut off: the job was deleted while it was read" in caplog.text
    assert "Traceback" not in caplog.text


class TestADatabaseThatGoesAway:
    @pytest.fixture
    def database_url(self, own_postgres_server):
        return own_postgres_server.url("migrated")

    def test_in_the_middle_and_before(self, own_postgres_server, server, http, job_id, started, caplog):
        connection = open_slowly(server, job_id)
        until(settled(started))
        own_postgres_server.interrupt()
        answer = HTTPResponse(connection)
        answer.begin()
        with connection, answer, pytest.raises(IncompleteRead):
            answer.read()
        assert "a download was cut off: the database" in caplog.text
        refused = http.get(f"/v1/jobs/{job_id}/iterations", params={"format": "csv"})
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        own_postgres_server.go_on()


def test_a_client_of_a_library_learns_of_it(server, job_id, database, monkeypatch):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        with client.stream("GET", f"/v1/jobs/{job_id}/iterations", params={"format": "ndjson"}) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            unreadable(monkeypatch)
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
                for _ in chunks:
                    pass
        assert client.get("/healthz").status_code == 200


def unreadable(monkeypatch):
    """Make whatever part comes next fail, by no error that anybody expected."""
    from epochd.store import series

    def fail(*_args):
        raise RuntimeError("something unforeseen")

    monkeypatch.setattr(series, "_located", fail)


def test_clients_that_leave_leave_nothing(server, app, job_id, started):
    threads = threading.active_count()
    connections = [
        open_slowly(server, job_id, kind) for kind in ("csv", "ndjson", "parquet") for _ in range(3)
    ]
    until(settled(started))
    for connection in connections:
        connection.close()
    until(lambda: not server.server_state.connections)
    until(lambda: not server.server_state.tasks)
    until(lambda: app.state.database._engine.pool.checkedout() == 0)
    assert threading.active_count() <= threads + 40
    parts = started["parts"]
    assert settled(started)()
    assert started["parts"] == parts < 9 * ITERATIONS // (16 * 1024)


def test_readers_that_do_not_read_hold_no_thread(server, app, http, job_id, started):
    connections = [open_slowly(server, job_id) for _ in range(45)]  # more than the server has threads
    until(settled(started))
    until(lambda: app.state.database._engine.pool.checkedout() == 0)
    assert http.get(f"/v1/jobs/{job_id}").json()["done"]
    page = http.get(f"/v1/jobs/{job_id}/iterations", params={"limit": 5}).json()
    assert page["columns"]["iteration"] == [1, 2, 3, 4, 5]
    assert len(http.get(f"/v1/jobs/{job_id}/iterations", params={"format": "csv"}).text.splitlines()) == (
        ITERATIONS + 1
    )
    for connection in connections:
        connection.close()


def test_few_threads_make_files(server, app, http, job_id, monkeypatch):
    from epochd.store import series

    busy, most, lock, gathered = 0, 0, threading.Lock(), threading.Event()
    located = series._located

    def counted(*args):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            if busy == 4:
                gathered.set()
        gathered.wait(30)
        time.sleep(0.01)  # for a fifth to come, if it may
        with lock:
            busy -= 1
        return located(*args)

    monkeypatch.setattr(series, "_located", counted)
    connections = [open_slowly(server, job_id) for _ in range(20)]
    until(lambda: most == 4)
    assert http.get(f"/v1/jobs/{job_id}").json()["done"]
    for connection in connections:
        connection.close()
    assert most == 4


class TestWhoNeverReads:
    @pytest.fixture
    def patience(self):
        return 0.4

    @pytest.fixture
    def settings(self, settings, patience):
        return settings.model_copy(update={"slow_reader_seconds": patience})

    @pytest.mark.parametrize("kind", ["csv", "ndjson"])
    def test_is_cut_off(self, server, app, job_id, kind, caplog):
        connection = open_slowly(server, job_id, kind)
        until(lambda: "its reader took nothing for 0.4 s" in caplog.text)
        until(lambda: is_idle(server))
        assert app.state.patience._watches == {}
        with connection, pytest.raises((ConnectionResetError, IncompleteRead)):
            answer = HTTPResponse(connection)
            answer.begin()
            answer.read()

    def test_is_cut_off_whatever_it_asked_for(self, server):
        with pipelined(server):
            until(lambda: waiting(server))
            until(lambda: is_idle(server))

    @pytest.mark.parametrize("patience", [2.0])
    def test_who_reads_slowly_gets_everything(self, server, job_id):
        with open_slowly(server, job_id) as connection:
            received = bytearray()
            for _ in range(30):  # longer than the patience
                received += connection.recv(1 << 15)
                time.sleep(0.1)
            while not received.endswith(b"0\r\n\r\n"):
                received += connection.recv(1 << 20)
        assert received.count(b"\n") > ITERATIONS

    @pytest.mark.parametrize("patience", [600.0])
    def test_is_not_waited_for_at_a_shutdown(self, server, app, job_id, started):
        with open_slowly(server, job_id), pipelined(server):
            until(settled(started))
            until(lambda: len(waiting(server)) == 2)
            app.state.patience.close()
            until(lambda: is_idle(server))


def pipelined(server):
    """Ask for more than the buffers hold, and read nothing of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
    connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 60)
    return connection


def is_idle(server):
    return not (waiting(server) or server.server_state.tasks)


def waiting(server):
    """The connections with bytes that nobody has taken yet."""
    connections = list(server.server_state.connections)
    return [one for one in connections if one.transport.get_write_buffer_size() > 0]
