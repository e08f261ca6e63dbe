"""The database goes away, the disk is full: training goes on where it can, and says what is wrong where it cannot."""

import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

LONG = {
    "dataset": {"name": "synthetic", "samples": 20_000, "features": 16, "classes": 4, "noise": 0.3},
    "model": {"name": "mlp", "hidden_sizes": [32], "dropout": 0.1},
    "epochs": 5000,
    "batch_size": 64,
}
SHORT = {"dataset": "digits", "epochs": 3, "batch_size": 64}


def has_trained(job: dict[str, Any]) -> bool:
    return job["status"] == "running" and job["progress"]["epoch"] >= 2


def assert_says_unavailable(service: Any, path: str) -> None:
    started = time.monotonic()
    answer = service.client.get(path, timeout=30)
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["code"] == "database_unavailable"
    # Not a measure of speed: without a bound a request to a server that is gone would hang for minutes.
    assert time.monotonic() - started < 25


def assert_recorded_once(service: Any, job: dict[str, Any]) -> None:
    last, epochs = job["progress"]["iteration"], job["progress"]["epoch"]
    assert service.iterations(job["id"]) == [*range(1, last + 1)]
    assert [row["epoch"] for row in service.epochs(job["id"])] == [*range(1, epochs + 1)]
    completed = [event for event in service.events(job["id"]) if event["type"] == "epoch.completed"]
    assert [event["data"]["epoch"] for event in completed] == [*range(1, epochs + 1)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.torture)])
def test_training_goes_on_while_postgres_is_stopped(
    make_service: Callable[..., Any], own_postgres_server: Any, seconds: int
):
    service = make_service(own_postgres_server.url("migrated"), "--lease-seconds", "30")
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    runners = service.runners()
    before = service.job(job_id)
    own_postgres_server.interrupt()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert_says_unavailable(service, f"/v1/jobs/{job_id}")
        time.sleep(seconds / 10)
    own_postgres_server.go_on()
    after = service.wait(job_id, lambda job: job["progress"]["iteration"] > before["progress"]["iteration"])
    assert (after["status"], after["attempt"]) == ("running", 1)
    assert service.runners() == runners
    service.wait(job_id, lambda job: job["progress"]["metrics_lag_seconds"] < 2)
    done = service.end_soon(job_id)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert_recorded_once(service, done)


@pytest.mark.torture
@pytest.mark.timeout(300)
def test_training_goes_on_while_postgres_is_frozen(
    make_service: Callable[..., Any], own_postgres_server: Any, wait_until: Callable[..., Any]
):
    service = make_service(own_postgres_server.url("migrated"), "--lease-seconds", "30")
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    server = psutil.Process(own_postgres_server.pid)
    frozen = [server, *server.children()]
    for process in frozen:
        process.suspend()
    try:
        assert_says_unavailable(service, f"/v1/jobs/{job_id}")
        assert_says_unavailable(service, f"/v1/jobs/{job_id}")
    finally:
        for process in reversed(frozen):
            process.resume()
    # The first requests may still meet connections that died.
    wait_until(lambda: service.client.get(f"/v1/jobs/{job_id}").status_code == 200, "the API has recovered")
    done = service.end_soon(job_id)
    assert (done["status"], done["attempt"]) == ("succeeded", 1)
    assert_recorded_once(service, done)


@pytest.mark.parametrize("database_kind", ["postgres"], indirect=True)
def test_a_full_disk_costs_checkpoints_and_then_the_job_but_never_the_worker(
    start_service: Callable[..., Any], start_command: Callable[..., Any], database_url: str, data_dir: Path
):
    service = start_service("--workers", "0")
    where = ("--database-url", database_url, "--data-dir", str(data_dir))
    worker = start_command("worker", *where, "--retry-delay-seconds", "0")
    assert service.wait(service.submit(**SHORT))["status"] == "succeeded"
    for process in worker.processes():
        psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (4096, -1))
    wide = {"name": "mlp", "hidden_sizes": [256]}
    job_id = service.submit(**{**LONG, "model": wide, "epochs": 60}, max_attempts=2)
    job = service.wait(job_id)
    assert job["status"] == "failed"
    error = job["error"]
    assert (error["category"], error["code"], error["retryable"]) == ("infrastructure", "disk_full", True)
    assert job["attempt"] == 2
    failed = [event["data"] for event in service.events(job_id) if event["type"] == "checkpoint.failed"]
    assert failed
    assert {data["code"] for data in failed} == {"disk_full"}

    for process in worker.processes():
        psutil.Process(process.pid).rlimit(resource.RLIMIT_FSIZE, (-1, -1))
    service.client.post(f"/v1/jobs/{job_id}/retry").raise_for_status()
    done = service.wait(job_id)
    assert done["status"] == "succeeded"
    assert_recorded_once(service, done)
    assert worker.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_data_directory_that_cannot_be_written_is_named(start_service: Callable[..., Any], data_dir: Path):
    service = start_service("--retry-delay-seconds", "0")
    assert service.wait(service.submit(**SHORT))["status"] == "succeeded"
    artifacts = data_dir / "artifacts"
    artifacts.rename(data_dir / "away")
    artifacts.write_text("no directory")
    job = service.wait(service.submit(**SHORT, max_attempts=2))
    assert (job["status"], job["attempt"]) == ("failed", 2)
    assert (job["error"]["category"], job["error"]["code"]) == ("infrastructure", "data_dir_not_writable")
