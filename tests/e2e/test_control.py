"""Callers pause, resume, amend, cancel and retry jobs, and nothing that was trained or recorded is lost."""

import shutil
from typing import Any

import pytest

LONG = {
    "dataset": {"name": "synthetic", "samples": 20_000, "features": 16, "classes": 4, "noise": 0.3},
    "model": {"name": "mlp", "hidden_sizes": [32], "dropout": 0.1},
    "epochs": 5000,
    "batch_size": 64,
}


def has_trained(job: dict[str, Any], epochs: int = 2) -> bool:
    return job["status"] == "running" and job["progress"]["epoch"] >= epochs


def post(service: Any, job_id: str, action: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post(f"/v1/jobs/{job_id}/{action}", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def patch(service: Any, job_id: str, **changes: Any) -> dict[str, Any]:
    answer = service.client.patch(f"/v1/jobs/{job_id}", json=changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


def attempts(service: Any, job_id: str) -> list[dict[str, Any]]:
    return service.client.get(f"/v1/jobs/{job_id}/attempts").raise_for_status().json()["data"]


def of_type(service: Any, job_id: str, kind: str) -> list[dict[str, Any]]:
    return [event["data"] for event in service.events(job_id) if event["type"] == kind]


def assert_whole(service: Any, job: dict[str, Any]) -> None:
    """Every iteration and epoch is recorded and announced once."""
    last, epochs = job["progress"]["iteration"], job["progress"]["epoch"]
    assert service.iterations(job["id"]) == [*range(1, last + 1)]
    assert [row["epoch"] for row in service.epochs(job["id"])] == [*range(1, epochs + 1)]
    assert [data["epoch"] for data in of_type(service, job["id"], "epoch.completed")] == [
        *range(1, epochs + 1)
    ]


def paused(service: Any, job_id: str) -> dict[str, Any]:
    post(service, job_id, "pause")
    return service.wait(job_id, lambda job: job["status"] == "paused")


def test_a_paused_job_holds_no_process_and_goes_on_exactly_where_it_was(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    job = paused(service, job_id)
    assert not job["done"]
    assert job["progress"]["iteration"] > 0
    assert service.runners() == []
    assert service.wait(service.submit(dataset="iris", epochs=1, batch_size=8))["status"] == "succeeded"

    post(service, job_id, "resume")
    epochs = job["progress"]["epoch"] + 3
    patch(service, job_id, epochs=epochs)
    done = service.wait(job_id)
    assert (done["status"], done["stop_reason"], done["progress"]["epoch"]) == (
        "succeeded",
        "completed",
        epochs,
    )
    first, second = attempts(service, job_id)
    assert (first["outcome"], second["outcome"]) == ("paused", "succeeded")
    assert second["restored"]["iteration"] == job["progress"]["iteration"] == first["last_iteration"]
    assert second["first_iteration"] == first["last_iteration"] + 1
    assert len(of_type(service, job_id, "job.paused")) == len(of_type(service, job_id, "job.resumed")) == 1
    assert_whole(service, done)


def test_an_amended_learning_rate_holds_from_the_next_iteration_on(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    answer = patch(service, job_id, optimizer={"learning_rate": 0.0001}, name="slower", priority=7)
    assert answer["spec"]["optimizer"]["learning_rate"] == 0.0001
    assert (answer["name"], answer["spec"]["priority"]) == ("slower", 7)
    service.wait(job_id, lambda _: len(of_type(service, job_id, "spec.amended")) >= 2)
    done = service.end_soon(job_id)
    (changed,) = [
        data
        for data in of_type(service, job_id, "spec.amended")
        if "optimizer.learning_rate" in data["changes"]
    ]
    page = service.client.get(
        f"/v1/jobs/{job_id}/iterations",
        params={"after": changed["iteration"] - 1, "limit": 2, "fields": "learning_rate"},
    ).json()
    assert page["columns"]["learning_rate"] == pytest.approx([0.001, 0.0001])
    assert_whole(service, done)


def test_a_cancelled_job_that_is_retried_goes_on_from_its_newest_checkpoint(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    post(service, job_id, "cancel", keep="best")
    cancelled = service.wait(job_id)
    assert cancelled["status"] == "cancelled"
    assert set(service.artifacts(job_id)) == {"model.safetensors", "model.json", "receipt.json"}
    job = post(service, job_id, "retry")
    assert (job["status"], job["done"], job["stop_reason"]) == ("queued", False, None)
    service.wait(job_id, has_trained)
    done = service.end_soon(job_id)
    assert done["status"] == "succeeded"
    assert attempts(service, job_id)[1]["restored"]["iteration"] == cancelled["progress"]["iteration"]
    assert_whole(service, done)


def test_a_cancellation_that_comes_too_late_for_the_weights_says_so(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    job = paused(service, job_id)
    shutil.rmtree(service.data_dir / "checkpoints" / job_id)
    post(service, job_id, "cancel", keep="best")
    done = service.wait(job_id)
    assert (done["status"], done["error"]["code"]) == ("cancelled", "no_usable_checkpoint")
    assert (done["progress"]["iteration"], done["metrics"]) == (job["progress"]["iteration"], job["metrics"])
    assert_whole(service, done)


def test_a_job_that_is_cancelled_and_retried_leaves_the_files_of_its_last_attempt_alone(service: Any):
    job_id = service.submit(**LONG)
    for _ in range(2):
        service.wait(job_id, has_trained)
        post(service, job_id, "cancel", keep="last")
        service.wait(job_id)
        post(service, job_id, "retry")
    service.wait(job_id, has_trained)
    service.end_soon(job_id)
    folder = service.data_dir / "artifacts" / job_id
    service.wait(job_id, lambda _: [one.name for one in folder.iterdir()] == ["attempt-3"])


def test_a_paused_job_that_is_cancelled_still_gives_its_best_weights(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    job = paused(service, job_id)
    post(service, job_id, "cancel", keep="best")
    done = service.wait(job_id)
    assert (done["status"], done["stop_reason"]) == ("cancelled", "cancelled")
    assert 1 <= done["selected_checkpoint"]["epoch"] <= job["progress"]["epoch"]
    assert set(service.artifacts(job_id)) == {"model.safetensors", "model.json", "receipt.json"}


def test_a_retry_from_scratch_replaces_what_was_recorded(service: Any):
    job_id = service.submit(**LONG)
    service.wait(job_id, has_trained)
    post(service, job_id, "cancel", keep="nothing")
    service.wait(job_id)
    patch_refused = service.client.patch(f"/v1/jobs/{job_id}", json={"epochs": 3})
    assert patch_refused.status_code == 409
    post(service, job_id, "retry", **{"from": "scratch"})
    service.wait(job_id, lambda job: job["attempt"] == 2 and has_trained(job, 1))
    service.end_soon(job_id)
    assert attempts(service, job_id)[1]["first_iteration"] == 1
