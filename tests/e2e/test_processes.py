"""What happens to jobs and processes when something is told to stop, or is killed."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.marks import postgres_in_torture

from epochd.client.events import read_events

SHORT = {"dataset": "digits", "epochs": 3, "batch_size": 64}
# Leases that expire while a test waits, and are still renewed in time on a busy machine.
SOON = ("--lease-seconds", "3", "--retry-delay-seconds", "0")


def is_training(job: dict[str, Any]) -> bool:
    return job["status"] == "running" and job["progress"]["epoch"] >= 2


def assert_recorded_once(service: Any, job_id: str, iterations: int, epochs: int) -> None:
    assert service.iterations(job_id) == list(range(1, iterations + 1))
    assert [row["epoch"] for row in service.epochs(job_id)] == list(range(1, epochs + 1))


@postgres_in_torture
def test_it_ends_in_order_with_a_job_and_a_stream_open(
    start_service: Callable[..., Any], endless: dict[str, Any]
):
    service = start_service("--shutdown-seconds", "20")
    job_id = service.submit(**endless)
    service.wait(job_id, is_training)
    assert len(service.processes()) >= 3
    with service.client.stream("GET", f"/v1/jobs/{job_id}/events", params={"iterations": "true"}) as stream:
        messages = stream.iter_bytes()
        next(messages)
        service.send(signal.SIGTERM)
        for _ in messages:  # it ends, instead of keeping the service from ending
            pass
    assert service.process.wait(60) == 0
    assert service.processes() == []
    assert "epochd has stopped." in service.output
    assert "Traceback" not in service.errors

    again = start_service()
    job = again.wait(job_id, lambda job: is_training(job) and job["attempt"] == 2)
    assert job["error"] is None
    done = again.end_soon(job_id)
    assert_recorded_once(again, job_id, done["progress"]["iteration"], done["progress"]["epoch"])
    first, second = again.client.get(f"/v1/jobs/{job_id}/attempts").json()["data"]
    assert (first["outcome"], second["outcome"]) == ("released", "succeeded")
    assert second["restored"]["iteration"] == first["last_iteration"] > 0


@postgres_in_torture
def test_ctrl_c_in_a_terminal_reaches_everybody_and_does_no_harm(
    start_service: Callable[..., Any], endless: dict[str, Any]
):
    # A terminal sends the signal to the whole process group.
    service = start_service()
    service.wait(service.submit(**endless), is_training)
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(60) == 0
    assert service.processes() == []
    assert "Traceback" not in service.errors
    assert "starting it again" not in service.errors


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_nothing_survives_a_service_that_was_killed(
    start_service: Callable[..., Any], endless: dict[str, Any], wait_until: Callable[..., Any]
):
    service = start_service()
    service.wait(service.submit(**endless), is_training)
    assert service.runners()
    service.end(signal.SIGKILL)
    wait_until(lambda: not service.processes(), "all children are gone")


@postgres_in_torture
def test_a_job_whose_runner_was_killed_is_made_again(
    start_service: Callable[..., Any], endless: dict[str, Any]
):
    service = start_service(*SOON)
    spec = {**endless, "epochs": 400}
    job_id = service.submit(**spec)
    service.wait(job_id, is_training)
    (runner,) = service.runners()
    runner.kill()
    job = service.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    lost = [event for event in service.events(job_id) if event["type"] == "attempt.lost"]
    assert [event["data"]["attempt"] for event in lost] == [1]
    assert_recorded_once(service, job_id, job["plan"]["total_iterations"], 400)


@postgres_in_torture
def test_a_job_whose_last_runner_was_killed_fails(start_service: Callable[..., Any], endless: dict[str, Any]):
    service = start_service(*SOON)
    job_id = service.submit(**endless, max_attempts=1)
    service.wait(job_id, is_training)
    (runner,) = service.runners()
    runner.kill()
    job = service.wait(job_id)
    assert (job["status"], job["error"]["category"]) == ("failed", "infrastructure")
    assert "killed by signal 9" in job["error"]["message"]
    assert service.wait(service.submit(**SHORT))["status"] == "succeeded"


@postgres_in_torture
def test_a_worker_that_was_killed_is_replaced_and_its_job_made_again(
    start_service: Callable[..., Any], endless: dict[str, Any]
):
    service = start_service(*SOON)
    job_id = service.submit(**{**endless, "epochs": 400})
    service.wait(job_id, is_training)
    (worker,) = service.workers()
    worker.kill()
    job = service.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    assert_recorded_once(service, job_id, job["plan"]["total_iterations"], 400)
    assert [replacement.pid for replacement in service.workers()] != [worker.pid]


def test_an_api_alone_and_a_worker_alone(
    start_service: Callable[..., Any],
    start_command: Callable[..., Any],
    database_url: str,
    data_dir: Path,
    wait_until: Callable[..., Any],
):
    service = start_service("--workers", "0")
    assert len(service.processes()) == 1
    job_id = service.submit(**SHORT)
    assert service.client.get("/readyz").status_code == 503
    assert service.job(job_id)["status"] == "queued"
    worker = start_command("worker", "--database-url", database_url, "--data-dir", str(data_dir))
    assert service.wait(job_id)["status"] == "succeeded"
    assert service.client.get("/readyz").status_code == 200
    assert set(service.artifacts(job_id)) == {"model.safetensors", "model.json", "receipt.json"}
    assert worker.end() == 0
    assert worker.processes() == []
    wait_until(lambda: service.client.get("/readyz").status_code == 503, "the worker has signed off")
    assert service.end() == 0


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_reader_that_was_cut_off_by_a_restart_misses_nothing(
    start_service: Callable[..., Any], endless: dict[str, Any]
):
    service = start_service()
    job_id = service.submit(**endless)
    service.wait(job_id, is_training)
    port = httpx.URL(service.url).port
    seen: list[Any] = []
    path = f"{service.url}/v1/jobs/{job_id}/events"

    def follow() -> None:
        with httpx.Client() as client:
            seen.extend(read_events(client, path, params={"iterations": "true"}, attempts=100))

    reader = threading.Thread(target=follow)
    reader.start()
    assert service.end() == 0
    again = start_service("--port", str(port))
    again.wait(job_id, lambda job: is_training(job) and job["attempt"] == 2)
    again.client.post(f"/v1/jobs/{job_id}/cancel", json={"keep": "nothing"}).raise_for_status()
    again.wait(job_id)
    reader.join(60)
    assert not reader.is_alive()
    events = [event.json() for event in seen if event.type != "iterations"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events == again.events(job_id)
    # The second attempt went on behind the first one's checkpoint: together they are the curve.
    iterations = [
        iteration
        for event in seen
        if event.type == "iterations"
        for iteration in event.json()["columns"]["iteration"]
    ]
    assert iterations == again.iterations(job_id)
