"""Jobs to mirror, and real tools to mirror them to: one MLflow server a module, TensorBoard's own reader."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from epochd.contract.spec import JobSpec
from epochd.jobs.submit import submit
from epochd.mirror.follower import Follower
from epochd.store import attempts, jobs, metrics, tables
from epochd.store.metrics import Block, NewEpoch
from epochd.store.mirrors import MirrorRow

SPEC = {
    "dataset": "digits",
    "epochs": 4,
    "batch_size": 64,
    "name": "digits, small",
    "tags": {"team": "vision"},
}


@pytest.fixture
def queue(database):
    def make(**changes):
        return submit(database, JobSpec.model_validate({**SPEC, **changes})).row

    return make


@pytest.fixture
def claim(database):
    """Begin an attempt of the next job."""

    def begin():
        with database.write() as tx:
            claimed = jobs.claim(tx, worker="worker", device="cpu", lease_seconds=30)
        assert claimed is not None
        return claimed

    return begin


def block(number, first, last, *, holes=(), plus=0):
    loss = np.arange(first, last + 1).astype(np.float32) + np.float32(plus)
    loss[[iteration - first for iteration in holes]] = np.nan
    return Block(number, loss, loss / 2, loss / 4, loss * 2, first_iteration=first)


@pytest.fixture
def record(database):
    """Record iterations (train_loss is their number) and the epochs that they complete, as the recorder does."""

    def record_(claimed, first, last, *, holes=(), plus=0):
        per_epoch = claimed.job.plan["iterations_per_epoch"]
        bounds = [first, *range((first - 1) // 1024 * 1024 + 1025, last + 1, 1024), last + 1]
        blocks = [
            block((a - 1) // 1024, a, b - 1, holes=[n for n in holes if a <= n < b], plus=plus)
            for a, b in pairwise(bounds)
        ]
        done = [n for n in range(1, last // per_epoch + 1) if n * per_epoch >= first]
        epochs = [
            NewEpoch(
                n,
                n * per_epoch,
                {"train_loss": 1 / n, "validation_loss": 2 / n if n % 2 else None},
                0.1,
                0.5,
                True,
            )
            for n in done
        ]
        with database.write() as tx:
            metrics.record_iterations(tx, claimed.attempt_id, per_epoch, blocks)
            metrics.record_epochs(tx, claimed.attempt_id, epochs)
            columns = {"iteration": last, "epoch": last // per_epoch}
            jobs.record_progress(tx, claimed.job.number, attempt=claimed.attempt, **columns)

    return record_


@pytest.fixture
def end(database):
    """End a running attempt and its job."""

    def end_(claimed, status="succeeded", **columns):
        with database.write() as tx:
            attempts.finish(tx, claimed.attempt_id, outcome=status)
            done = {"finished_at": jobs.now()} if status in {"succeeded", "failed", "cancelled"} else {}
            columns = {"stop_reason": "completed" if status == "succeeded" else status, **done, **columns}
            jobs.transition(tx, claimed.job.number, expected=("running",), status=status, **columns)

    return end_


@pytest.fixture
def job_row(database):
    def read(number):
        with database.read() as tx:
            return jobs.by_number(tx, number)

    return read


@pytest.fixture
def follow(database) -> Iterator[Callable[..., Follower]]:
    """Make followers of a target, which the test drives by ``look``."""
    made = []

    def make(target, *, holder="mirror", points=10_000, lease_seconds=60.0, db=None):
        made.append(
            Follower(db or database, target, holder=holder, lease_seconds=lease_seconds, points=points)
        )
        return made[-1]

    yield make
    for follower in made:
        follower._leave()


def mirror_rows(database, number):
    """Where the mirrors of a job stand."""
    query = select(*(tables.mirrors.c[one.name] for one in fields(MirrorRow)))
    with database.read() as tx:
        return [MirrorRow(*row) for row in tx.execute(query.where(tables.mirrors.c.job_number == number))]


def catch_up(follower):
    """Look until there is nothing more; raises what the target raises."""
    for _ in range(1000):
        if not follower.look():
            return
    raise AssertionError("it never came to an end")


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Read a run by TensorBoard's own reader: (step, value) of each tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


class MlflowServer:
    """``mlflow server`` on SQLite, as an operator starts it; shared by all processes of pytest-xdist."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self.port = port
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        python = Path(sys.executable)
        store = f"sqlite:///{self._directory / 'mlflow.db'}"
        command = [python, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", store, "--artifacts-destination", str(self._directory / "files")]
        environment = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._directory / "server.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._directory, env=environment, start_new_session=True
            )
        (self._directory / "pid").write_text(str(process.pid))
        (self._directory / "port").write_text(str(self.port))
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError((self._directory / "server.log").read_text()[-3000:])

    def stop(self) -> None:
        """Kill it with all its children; started in a session of its own, maybe by another process."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((self._directory / "pid").read_text()), signal.SIGKILL)

    def call(self, method: str, path: str, **values: Any) -> dict[str, Any]:
        given = {"params": values} if method == "GET" else {"json": values}
        answer = httpx.request(method, f"{self.url}/api/2.0/mlflow/{path}", timeout=30, **given)
        assert answer.is_success, answer.text
        return answer.json()

    def runs(self, job_id: str) -> list[dict[str, Any]]:
        """All runs of a job that were not deleted, in whatever experiment."""
        found = self.call("GET", "experiments/search", max_results=100)["experiments"]
        answer = self.call(
            "POST",
            "runs/search",
            experiment_ids=[one["experiment_id"] for one in found],
            filter=f"tags.`epochd.job_id` = '{job_id}'",
        )
        return answer.get("runs", [])

    def history(self, run: str, key: str) -> list[tuple[int, float]]:
        """(step, value) of all values of a metric, as MLflow keeps them: duplicates, too."""
        answer = self.call("GET", "metrics/get-history", run_id=run, metric_key=key, max_results=25_000)
        return sorted((int(one.get("step", 0)), one["value"]) for one in answer.get("metrics", []))


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[MlflowServer]:
    """It takes seconds to start: one for all tests of all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / "mlflow"
    directory.mkdir(exist_ok=True)
    with locked(directory) as users:
        server = MlflowServer(directory, free_port() if not users else int((directory / "port").read_text()))
        if not users:
            server.start()
        (directory / worker_id).touch()
    yield server
    with locked(directory) as users:
        (directory / worker_id).unlink()
        if users == [worker_id]:
            server.stop()


@contextmanager
def locked(directory: Path) -> Iterator[list[str]]:
    """Keep other processes out, and tell which of them use the server."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield [path.name for path in directory.iterdir() if re.fullmatch(r"gw[0-9]+|master", path.name)]
