"""The API on a real database, and a stand-in for the worker that changes a job as a worker does."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

from epochd.api.app import create_app
from epochd.api.protocol import Protocol
from epochd.client.events import EventParser
from epochd.jobs import claim, complete
from epochd.jobs.complete import Outcome
from epochd.settings import Settings
from epochd.store import attempts, events, jobs, metrics
from epochd.store.events import NewEvent
from epochd.store.metrics import Block, NewEpoch
from epochd.store.tables import BLOCK_ITERATIONS

SPEC = {
    "name": "first",
    "dataset": "iris",
    "epochs": 4,
    "batch_size": 12,
}  # 120 samples: 10 iterations an epoch
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def settings(database_url, data_dir):
    return Settings(database_url=database_url, data_dir=data_dir, heartbeat_seconds=15)


@pytest.fixture
def app(settings):
    app = create_app(settings)
    yield app
    app.state.feed.close()
    app.state.feed.join(5)
    app.state.board.close()
    app.state.database.close()


@pytest.fixture
def api(app):
    """A client of the application in this process; unexpected errors are answered as a server would."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def create(api):
    """Queue a job and return it as the API shows it."""

    def make(**changes):
        answer = api.post("/v1/jobs", json={**SPEC, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()

    return make


class Trainer:
    """What a worker and its runner do to a job, step by step."""

    def __init__(self, database):
        self.database = database
        self.claim = None
        self.resumed_at = 0
        self.rows = []

    def start(self):
        """Claim the next job."""
        self.claim = claim.claim(self.database, worker="worker-1", device="cpu", lease_seconds=60)
        assert self.claim is not None
        self.resumed_at = 0
        self.rows = []
        return self

    def resume(self, iteration, saved_by=1):
        """Claim the next job, and go on from a checkpoint of this iteration, as the recorder's first write says."""
        self.start()
        restored = {
            "epoch": iteration // 10,
            "iteration": iteration,
            "attempt": saved_by,
            "saved_at": "2026-01-31T09:00:00.123Z",
            "skipped": [],
        }
        self.resumed_at = iteration
        self.rows = [None] * iteration
        with self.database.write() as tx:
            attempts.renew(tx, self.claim.attempt_id, 60)
            attempts.begin(tx, self.claim.attempt_id, iteration + 1, restored)
            self._progress(tx, epoch=iteration // 10)
            data = {"attempt": self.claim.attempt, "saved_by_attempt": saved_by, **restored}
            events.append(tx, self.number, "checkpoint.restored", data)
        return self

    @property
    def number(self):
        return self.claim.job.number

    def iterate(self, count):
        """Record so many iterations more, with values that tell attempt and iteration."""
        done = len(self.rows)
        self._extend(count)
        with self.database.write() as tx:
            attempts.renew(tx, self.claim.attempt_id, 60)
            metrics.record_iterations(tx, self.claim.attempt_id, 10, self._blocks(done))
            self._progress(tx)

    def complete_epoch(self, **more):
        """Record the end of an epoch."""
        epoch = max(1, len(self.rows) // 10)
        values = {"train_loss": 1 / epoch, "validation_loss": 2 / epoch, **more}
        row = NewEpoch(
            epoch=epoch,
            iteration=len(self.rows),
            metrics=values,
            learning_rate=0.001,
            seconds=0.5,
            is_best=True,
        )
        with self.database.write() as tx:
            metrics.record_epochs(tx, self.claim.attempt_id, [row])
            self._progress(tx, epoch=epoch, metrics=values)
            data = {"epoch": epoch, "iteration": len(self.rows), **values}
            events.append(tx, self.number, "epoch.completed", data)

    def burst(self, epochs):
        """Record several short epochs in one transaction, as the recorder of a fast training does."""
        done = len(self.rows)
        self._extend(10 * epochs)
        ends = range(done + 10, len(self.rows) + 1, 10)
        news = [NewEvent("epoch.completed", {"epoch": end // 10}, end) for end in ends]
        with self.database.write() as tx:
            metrics.record_iterations(tx, self.claim.attempt_id, 10, self._blocks(done))
            self._progress(tx)
            events.append_many(tx, self.number, news)

    def announce(self, kind="diagnosis.changed", **data):
        with self.database.write() as tx:
            return events.append(tx, self.number, kind, data)

    def diagnose(self, diagnosis):
        with self.database.write() as tx:
            self._progress(tx, epoch=len(self.rows) // 10, diagnosis=diagnosis)

    def lose(self):
        complete.lose(self.database, self.claim.attempt_id, "The process died.", retry_delay_seconds=0)

    def finish(self, status="succeeded", artifacts=()):
        stop_reason = {"succeeded": "completed", "paused": None}.get(status, status)
        outcome = Outcome(status, stop_reason, artifacts=artifacts)
        assert complete.complete(self.database, self.claim.attempt_id, outcome, retry_delay_seconds=0)

    def _extend(self, count):
        done = len(self.rows)
        self.rows += [self.claim.attempt * 1_000_000 + done + one + 1 for one in range(count)]

    def _progress(self, tx, **columns):
        measured = {"iteration": len(self.rows), "eta_seconds": 5.0, "metrics_lag_seconds": 0.25}
        written = jobs.record_progress(
            tx,
            self.number,
            attempt=self.claim.attempt,
            iteration=len(self.rows),
            progress=measured,
            **columns,
        )
        assert written

    def _blocks(self, done):
        first, last = done // BLOCK_ITERATIONS, (len(self.rows) - 1) // BLOCK_ITERATIONS
        return [self._block(number) for number in range(first, last + 1)]

    def _block(self, number):
        begin = max(number * BLOCK_ITERATIONS, self.resumed_at)
        values = np.array(self.rows[begin : (number + 1) * BLOCK_ITERATIONS], np.float32)
        return Block(number, values, values / 2, values / 4, values * 2, first_iteration=begin + 1)


@pytest.fixture
def trainer(database):
    return Trainer(database)


@contextmanager
def serving(app, send_buffer=None):
    """Serve an application on a free port, in a thread, and yield its URL and the server."""
    listener = socket.socket()
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # its connections inherit that
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=Protocol, log_level="warning", timeout_graceful_shutdown=20, backlog=2048
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield server
    finally:
        app.state.feed.close()
        app.state.patience.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def server(app):
    with serving(app) as server:
        yield server


@pytest.fixture
def http(server):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def submit(http):
    """Queue a job over HTTP and return its id."""

    def make(**changes):
        answer = http.post("/v1/jobs", json={**SPEC, **changes})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    return make


@pytest.fixture
def read_stream(http):
    """Read a stream until it ends, or until ``stop`` messages have come, and return the messages."""

    def read(job_id, last_id=None, stop=None, **params):
        headers = STREAM | ({"Last-Event-ID": last_id} if last_id else {})
        found = []
        with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, params=params) as answer:
            if answer.status_code == 204:
                return found
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            parser = EventParser()
            for chunk in answer.iter_bytes():
                for message in parser.feed(chunk):
                    found.append(message)
                    if stop is not None and len(found) == stop:
                        return found
        return found

    return read
