"""The process that mirrors, and a whole service with it."""

import signal
import socket
import subprocess
import sys
import time

import pytest
from tests.e2e.conftest import QUIET, Service
from tests.mirror.conftest import mirror_rows, scalars

from epochd.store import jobs, mirrors

ON_SQLITE = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
ON_POSTGRES = pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)
"""What is about processes is proved on one of the two."""
POSTGRES_IN_TORTURE = pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.torture)], indirect=True
)


def wait_until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)
    return value


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def start_mirror(database_url, data_dir, directory):
    started = []

    def start(**environment):
        variables = {
            "EPOCHD_DATABASE_URL": database_url,
            "EPOCHD_DATA_DIR": str(data_dir),
            "EPOCHD_MIRROR_TENSORBOARD": str(directory),
            "EPOCHD_LEASE_SECONDS": "1",
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "epochd.mirror"],
                stdin=subprocess.PIPE,
                env={**QUIET, **variables, **environment},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def steps(directory, tag="iteration/train_loss"):
    runs = list(directory.iterdir()) if directory.exists() else []
    return [step for run in runs for step, _ in scalars(run).get(tag, [])]


@POSTGRES_IN_TORTURE
def test_a_mirror_that_is_killed_leaves_no_gap_and_nothing_twice(
    queue, claim, record, end, start_mirror, directory
):
    job = queue(epochs=100)
    claimed = claim()
    last = 0
    for _ in range(2):
        mirror = start_mirror()
        sent = last
        deadline = time.monotonic() + 60
        while len(steps(directory)) <= sent + 20:
            assert time.monotonic() < deadline
            last += 25
            record(claimed, 1, last)
            time.sleep(0.1)
        mirror.send_signal(signal.SIGKILL)
        mirror.wait(10)
    end(claimed)
    start_mirror()
    wait_until(lambda: len(steps(directory)) >= last, "all is there")
    assert steps(directory) == list(range(1, last + 1))
    epochs = last // job.plan["iterations_per_epoch"]
    assert steps(directory, "train_loss") == list(range(1, epochs + 1))


@ON_SQLITE
@pytest.mark.parametrize("way", ["signal", "lifeline"])
def test_it_ends_in_order(database, queue, claim, record, start_mirror, directory, way):
    job = queue()
    record(claim(), 1, 10)
    mirror = start_mirror(EPOCHD_LEASE_SECONDS="3600")
    wait_until(lambda: len(steps(directory)) == 10, "it has sent something")
    if way == "signal":
        mirror.send_signal(signal.SIGTERM)
    else:
        mirror.stdin.close()
    assert mirror.wait(20) == 0
    with database.write() as tx:  # another need not wait an hour
        assert mirrors.take(tx, job.number, "tensorboard", "somebody", 10) is not None


@ON_POSTGRES
def test_it_ends_in_time_though_a_target_does_not_answer(queue, claim, record, start_mirror, directory):
    queue()
    record(claim(), 1, 10)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirror = start_mirror(
            EPOCHD_MIRROR_MLFLOW=f"http://127.0.0.1:{silent.getsockname()[1]}",
            EPOCHD_LEASE_SECONDS="3600",  # a request may take twenty minutes
            EPOCHD_SHUTDOWN_SECONDS="2",
        )
        connection, _ = silent.accept()
        wait_until(lambda: len(steps(directory)) == 10, "the other target has it all")
        mirror.send_signal(signal.SIGTERM)
        assert mirror.wait(30) == 0
        connection.close()


SPEC = {"dataset": "digits", "epochs": 5, "batch_size": 64, "name": "live", "model": {"name": "linear"}}


@ON_SQLITE
def test_a_service_mirrors_what_it_trains(
    database, database_url, data_dir, tmp_path, directory, mlflow_server
):
    """Killed mirror included: ``serve`` starts it again."""
    service = Service(
        tmp_path,
        database_url,
        data_dir,
        *("--mirror-tensorboard", str(directory), "--mirror-mlflow", mlflow_server.url),
        EPOCHD_LEASE_SECONDS="3",
    )
    try:
        assert f"TensorBoard in {directory}, MLflow at {mlflow_server.url}" in service.output
        first = service.submit(**SPEC)
        service.wait(first)
        wait_until(lambda: _has_all(database, first), "it was mirrored")
        [mirror] = [one for one in service.processes() if "epochd.mirror" in one.cmdline()]
        mirror.send_signal(signal.SIGKILL)
        second = service.submit(**SPEC)
        assert service.wait(second)["status"] == "succeeded"
        wait_until(lambda: _has_all(database, second), "it was mirrored")
        for job_id in (first, second):
            job = service.job(job_id)
            [path] = directory.glob(f"live-{job_id}")
            epochs = service.epochs(job_id)
            [run] = mlflow_server.runs(job_id)
            assert run["info"]["status"] == "FINISHED"
            for key in ("train_loss", "validation_loss", "validation_accuracy"):
                expected = [(one["epoch"], one[key]) for one in epochs]
                assert mlflow_server.history(run["info"]["run_id"], key) == expected
                assert [step for step, _ in scalars(path)[key]] == [step for step, _ in expected]
            iterations = list(range(1, job["progress"]["iteration"] + 1))
            for history in (
                mlflow_server.history(run["info"]["run_id"], "iteration/train_loss"),
                scalars(path)["iteration/train_loss"],
            ):
                assert [step for step, _ in history] == iterations
        assert service.end() == 0, service.errors
        assert service.processes() == []
    finally:
        service.client.close()
        service.kill_all()


def _has_all(database, job_id):
    with database.read() as tx:
        job = jobs.get(tx, job_id)
    rows = mirror_rows(database, job.number)
    return len(rows) == 2 and all(row.version == job.version for row in rows)


@pytest.mark.torture
@ON_POSTGRES
def test_a_target_that_is_stuck_does_not_touch_the_training(
    database, database_url, data_dir, tmp_path, directory, mlflow_server
):
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        service = Service(
            tmp_path,
            database_url,
            data_dir,
            *("--mirror-tensorboard", str(directory), "--mirror-mlflow", url),
            EPOCHD_SHUTDOWN_SECONDS="4",
        )
        try:
            job_id = service.submit(**SPEC)
            assert service.wait(job_id)["status"] == "succeeded"
            total = service.job(job_id)["progress"]["iteration"]
            wait_until(lambda: len(steps(directory)) == total, "the other target has it all")
            assert service.end() == 0, service.errors
            assert service.processes() == []
        finally:
            service.client.close()
            service.kill_all()
