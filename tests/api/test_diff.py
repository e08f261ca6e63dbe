"""GET /v1/jobs/{a}/diff/{b}."""

import json

import pytest

from epochd.store.artifacts import NewArtifact

RECEIPT = {
    "inputs": {
        "dataset": {"name": "iris", "digest": "sha256:1"},
        "validation_dataset": None,
        "split": {"digest": "sha256:2"},
        "starts_from": None,
    },
    "environment": {"packages": {"torch": "2.13.0"}, "threads": 1},
}


@pytest.fixture
def train(create, trainer, data_dir):
    """Train a job, and leave these artifacts."""

    def make(loss, receipt=None, weights="00", **changes):
        job = create(**changes)
        trainer.start()
        for epoch in (1, 2):
            trainer.iterate(10)
            trainer.complete_epoch(train_loss=1.0 if epoch == 1 else loss)
        files = [NewArtifact("model.safetensors", "w", "application/octet-stream", 1, weights)]
        if receipt is not None:
            path = data_dir / "artifacts" / job["id"] / "receipt.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(receipt))
            files.append(
                NewArtifact("receipt.json", f"{job['id']}/receipt.json", "application/json", 1, job["id"])
            )
        trainer.finish(artifacts=tuple(files))
        return job["id"]

    return make


@pytest.fixture
def diff(api):
    def ask(a, b):
        answer = api.get(f"/v1/jobs/{a}/diff/{b}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


def paths(found):
    return [one["path"] for one in found]


def test_two_trainings_alike_differ_nowhere(train, diff):
    a, b = train(0.5, RECEIPT), train(0.5, RECEIPT)
    assert diff(a, b) == {
        "a": a,
        "b": b,
        "spec": [],
        "data": [],
        "environment": [],
        "results": [],
        "first_different_epoch": None,
        "notes": [],
    }


def test_what_differs_is_told_by_its_path(train, diff):
    other = json.loads(json.dumps(RECEIPT))
    other["environment"]["packages"]["torch"] = "2.12.0"
    other["inputs"]["split"]["digest"] = "sha256:3"
    a, b = train(0.5, RECEIPT), train(0.25, other, weights="01", seed=7, name=None)
    found = diff(a, b)
    assert paths(found["spec"]) == ["name", "seed"]
    assert found["data"] == [{"path": "split.digest", "a": "sha256:2", "b": "sha256:3", "only_in": None}]
    assert paths(found["environment"]) == ["packages.torch"]
    assert {"path": "metrics.train_loss", "a": 0.5, "b": 0.25, "only_in": None} in found["results"]
    assert "sha256.model.safetensors" in paths(found["results"])
    assert found["first_different_epoch"] == 2


def test_without_a_receipt_data_and_environment_are_not_known(train, create, diff):
    done, queued = train(0.5, RECEIPT), create()["id"]
    found = diff(done, queued)
    assert (found["data"], found["environment"], found["first_different_epoch"]) == (None, None, None)
    assert [note.startswith(queued) and "not done" in note for note in found["notes"]] == [True]
    assert "status" in paths(found["results"])


def test_a_receipt_that_is_gone_or_damaged_is_none(train, diff, data_dir):
    a, b = train(0.5, RECEIPT), train(0.5, RECEIPT)
    (data_dir / "artifacts" / a / "receipt.json").write_text("{")
    (data_dir / "artifacts" / b / "receipt.json").unlink()
    assert len(diff(a, b)["notes"]) == 2


def test_a_job_that_is_not_there_is_a_404(api, create):
    job = create()["id"]
    for path in (f"{job}/diff/job_none", f"job_none/diff/{job}", f"{job}/diff/..%2f"):
        assert api.get(f"/v1/jobs/{path}").status_code == 404
    assert api.get(f"/v1/jobs/{job}/diff/{job}").json()["spec"] == []
