"""Jobs from the POST to the weights, on both databases."""

import hashlib
import json
import sqlite3
from contextlib import closing
from itertools import pairwise
from typing import Any

import psycopg
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn

from epochd.training.data import split_indices

DIGITS = {
    "name": "digits",
    "dataset": "digits",
    "model": {"name": "mlp", "hidden_sizes": [64], "dropout": 0.1},
    "epochs": 200,
    "batch_size": 64,
    "optimizer": {"name": "adamw", "learning_rate": 0.005},
    "early_stopping": {"monitor": "validation_loss", "patience": 4},
    "seed": 3,
}


@pytest.fixture(scope="module")
def digits(service: Any) -> dict[str, Any]:
    """A digits job that has stopped early."""
    return service.wait(service.submit(**DIGITS))


def query(url: str, sql: str) -> list[Any]:
    """Ask the database as anybody with a SQL prompt does."""
    if url.startswith("sqlite:///"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(url) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[call-overload]


def rebuild(files: dict[str, bytes]) -> tuple[nn.Module, dict[str, Any]]:
    """Load a model with torch alone."""
    description = json.loads(files["model.json"])
    layers = [
        getattr(nn, layer["type"])(**{key: value for key, value in layer.items() if key != "type"})
        for layer in description["architecture"]
    ]
    model = nn.Sequential(*layers)
    model.load_state_dict(safetensors.torch.load(files["model.safetensors"]))
    return model.eval(), description


def standardise(x: Any, description: dict[str, Any]) -> torch.Tensor:
    preprocessing = description["preprocessing"]
    x = torch.as_tensor(x, dtype=torch.float32).reshape(-1, *description["input_shape"])
    return (x - torch.tensor(preprocessing["mean"])) / torch.tensor(preprocessing["scale"])


def test_a_job_stops_early_and_says_why(digits: dict[str, Any]):
    stopping = digits["early_stopping"]
    assert (digits["status"], digits["stop_reason"]) == ("succeeded", "early_stopped")
    assert stopping["stopped"]
    assert stopping["epochs_without_improvement"] == stopping["patience"] == 4
    assert digits["progress"]["epoch"] == stopping["stopped_epoch"] == stopping["best_epoch"] + 4
    assert digits["selected_checkpoint"]["epoch"] == stopping["best_epoch"]
    assert digits["selected_checkpoint"]["value"] == stopping["best_value"]
    assert digits["plan"]["iterations_per_epoch"] == 23
    assert digits["progress"]["iteration"] == 23 * digits["progress"]["epoch"] < 23 * 200


def test_exactly_one_row_an_iteration_and_one_an_epoch(service: Any, digits: dict[str, Any]):
    iterations, epochs = digits["progress"]["iteration"], digits["progress"]["epoch"]
    assert service.iterations(digits["id"]) == list(range(1, iterations + 1))
    assert [row["epoch"] for row in service.epochs(digits["id"])] == list(range(1, epochs + 1))


def test_the_same_rows_at_a_sql_prompt(service: Any, digits: dict[str, Any]):
    iterations = digits["progress"]["iteration"]
    rows = query(
        service.database_url,
        "SELECT iteration, epoch, train_loss, gradient_norm FROM iteration_metrics "
        f"WHERE job_id = '{digits['id']}' ORDER BY iteration",
    )
    assert [row[0] for row in rows] == list(range(1, iterations + 1))
    assert [row[1] for row in rows] == [(iteration - 1) // 23 + 1 for iteration in range(1, iterations + 1)]
    assert all(row[2] > 0 and row[3] > 0 for row in rows)
    number = f"SELECT number FROM jobs WHERE id = '{digits['id']}'"
    attempts = f"SELECT id FROM attempts WHERE job_number = ({number})"
    epochs = query(
        service.database_url, f"SELECT count(*) FROM epoch_metrics WHERE attempt_id IN ({attempts})"
    )
    assert epochs == [(digits["progress"]["epoch"],)]


def test_the_events_are_numbered_without_a_gap_and_in_order(service: Any, digits: dict[str, Any]):
    events = service.events(digits["id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events[:2]] == ["job.queued", "job.started"]
    assert events[-1]["type"] == "job.succeeded"
    epochs = [event["data"]["epoch"] for event in events if event["type"] == "epoch.completed"]
    assert epochs == list(range(1, digits["progress"]["epoch"] + 1))
    assert all(early["created_at"] <= late["created_at"] for early, late in pairwise(events))


def test_the_weights_give_the_selected_value_with_torch_alone(service: Any, digits: dict[str, Any]):
    model, description = rebuild(service.artifacts(digits["id"]))
    x, y = load_digits(return_X_y=True)
    _, held_back = split_indices(y, "classification", 0.2, DIGITS["seed"])
    with torch.no_grad():
        scores = model(standardise(x[held_back], description))
    labels = torch.as_tensor(y[held_back])
    loss = nn.functional.cross_entropy(scores, labels).item()
    accuracy = (scores.argmax(1) == labels).float().mean().item()
    best = service.epochs(digits["id"])[digits["selected_checkpoint"]["epoch"] - 1]
    assert best["is_best"]
    assert loss == pytest.approx(digits["selected_checkpoint"]["value"], rel=1e-5)
    assert accuracy == pytest.approx(best["validation_accuracy"], abs=1e-6)
    assert accuracy > 0.93
    assert description["classes"] == [str(digit) for digit in range(10)]


def test_artifacts_are_listed_with_the_digest_of_what_is_downloaded(service: Any, digits: dict[str, Any]):
    listed = service.client.get(f"/v1/jobs/{digits['id']}/artifacts").json()["data"]
    files = service.artifacts(digits["id"])
    assert set(files) == {"model.safetensors", "model.json", "receipt.json"}
    for entry in listed:
        content = files[entry["name"]]
        assert (entry["bytes"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_regression_job_gives_its_selected_value_again(service: Any):
    spec = {
        "dataset": "diabetes",
        "epochs": 15,
        "batch_size": 32,
        "seed": 5,
        "early_stopping": {"monitor": "validation_r2"},
    }
    job = service.wait(service.submit(**spec))
    assert job["status"] == "succeeded"
    assert job["early_stopping"]["mode"] == "max"
    model, description = rebuild(service.artifacts(job["id"]))
    x, y = load_diabetes(return_X_y=True, scaled=False)
    _, held_back = split_indices(y, "regression", 0.2, 5)
    preprocessing = description["preprocessing"]
    with torch.no_grad():
        output = model(standardise(x[held_back], description))
    predicted = output * torch.tensor(preprocessing["target_scale"]) + torch.tensor(
        preprocessing["target_mean"]
    )
    truth = torch.as_tensor(y[held_back], dtype=torch.float32).reshape(-1, 1)
    r2 = 1 - ((truth - predicted) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert r2.item() == pytest.approx(job["selected_checkpoint"]["value"], abs=1e-4)


def test_a_thousand_samples_in_batches_of_a_hundred_are_ten_iterations(service: Any):
    spec = {
        "dataset": {"name": "synthetic", "samples": 1000},
        "epochs": 1,
        "batch_size": 100,
        "validation": None,
    }
    job = service.wait(service.submit(**spec))
    assert job["plan"]["mini_batches_per_epoch"] == job["plan"]["iterations_per_epoch"] == 10
    assert (job["stop_reason"], job["progress"]["iteration"]) == ("completed", 10)
    assert service.iterations(job["id"]) == list(range(1, 11))
    assert [row["epoch"] for row in service.epochs(job["id"])] == [1]


def test_a_loss_that_explodes_fails_the_job_and_names_the_iteration(service: Any):
    spec = {
        "dataset": "diabetes",
        "epochs": 50,
        "batch_size": 32,
        "optimizer": {"name": "sgd", "learning_rate": 1e6},
    }
    job = service.wait(service.submit(**spec))
    assert (job["status"], job["stop_reason"]) == ("failed", "failed")
    assert job["error"]["category"] == "numeric"
    last = service.iterations(job["id"])[-1]
    assert str(last) in job["error"]["message"]
    assert job["progress"]["iteration"] == last


class TestCancel:
    @pytest.mark.parametrize("keep", ["best", "last"])
    def test_what_is_kept_is_what_was_asked_for(self, service: Any, endless: dict[str, Any], keep: str):
        job = service.wait(service.submit(**endless), lambda job: job["progress"]["epoch"] >= 3)
        answer = service.client.post(f"/v1/jobs/{job['id']}/cancel", json={"keep": keep})
        assert answer.status_code == 202
        job = service.wait(job["id"])
        assert (job["status"], job["stop_reason"]) == ("cancelled", "cancelled")
        assert service.runners() == []
        selected = job["selected_checkpoint"]
        model, description = rebuild(service.artifacts(job["id"]))
        assert description["selection"] == selected
        epochs = {row["epoch"]: row for row in service.epochs(job["id"])}
        if keep == "best":
            assert epochs[selected["epoch"]]["is_best"]
            assert selected["value"] == min(row["validation_loss"] for row in epochs.values())
        else:
            assert selected["iteration"] == job["progress"]["iteration"] == service.iterations(job["id"])[-1]
        assert sum(parameter.numel() for parameter in model.parameters()) == 64 * 64 + 64 + 64 * 10 + 10

    def test_nothing_is_kept_when_nothing_was_asked_for(self, service: Any, endless: dict[str, Any]):
        job = service.wait(service.submit(**endless), lambda job: job["progress"]["iteration"] > 0)
        service.client.post(f"/v1/jobs/{job['id']}/cancel", json={"keep": "nothing"}).raise_for_status()
        job = service.wait(job["id"])
        assert (job["status"], job["selected_checkpoint"]) == ("cancelled", None)
        assert service.artifacts(job["id"]) == {}
        assert service.runners() == []

    def test_jobs_wait_their_turn_by_priority_and_then_by_age(self, service: Any, endless: dict[str, Any]):
        first = service.wait(service.submit(**endless), lambda job: job["status"] == "running")
        quick = {"dataset": "iris", "epochs": 1, "batch_size": 32}
        queued = [service.submit(**quick, priority=priority) for priority in (0, 0, 5, -5)]
        assert {service.job(job_id)["status"] for job_id in queued} == {"queued"}
        service.client.post(f"/v1/jobs/{first['id']}/cancel", json={"keep": "nothing"}).raise_for_status()
        started = {job_id: service.wait(job_id)["started_at"] for job_id in queued}
        assert sorted(queued, key=started.__getitem__) == [queued[2], queued[0], queued[1], queued[3]]


def test_a_job_can_be_deleted_with_all_it_recorded(service: Any):
    job_id = service.submit(dataset="iris", epochs=2, batch_size=16)
    service.wait(job_id)
    assert service.client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert service.client.get(f"/v1/jobs/{job_id}").status_code == 404
    count = f"SELECT count(*) FROM iteration_metrics WHERE job_id = '{job_id}'"
    assert query(service.database_url, count) == [(0,)]
