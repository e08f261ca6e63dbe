"""Exports that a job asks for, and those made afterwards."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from tests.marks import postgres_in_torture
from tests.worker.conftest import DIGITS

from epochd.datasets import builtin
from epochd.errors import ConfigurationError, NotFoundError
from epochd.jobs.claim import claim
from epochd.jobs.complete import complete
from epochd.settings import Settings
from epochd.training import export as exports
from epochd.worker.exporting import Exporter, export_all
from epochd.worker.model_file import export_model
from epochd.worker.order import AttemptOrder
from epochd.worker.runner import run_attempt

LINEAR = {**DIGITS, "epochs": 1, "model": {"name": "linear"}}


@pytest.fixture
def train(database, database_url, folders, queue, job_row):
    def run(**changes):
        job = queue(LINEAR, **changes)
        taken = claim(database, worker="worker", device="cpu", lease_seconds=60)
        order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=60)
        outcome = run_attempt(order)
        complete(database, taken.attempt_id, outcome, retry_delay_seconds=0)
        return job_row(job), outcome

    return run


def test_a_job_leaves_what_it_was_asked_for(train, told, folders):
    job, outcome = train(export=["onnx", "onnx"])
    files = {file.name: file for file in outcome.artifacts}
    assert "model.onnx" in files
    assert "model.pt2" not in files
    [event] = told(job, "export.completed")
    assert (event["name"], event["bytes"]) == ("model.onnx", files["model.onnx"].bytes)
    assert (event["split"], event["samples"]) == ("validation", job.plan["validation_samples"])
    assert event["largest_difference"] <= event["tolerance"]
    session = onnxruntime.InferenceSession(folders.artifacts / files["model.onnx"].path)
    raw = builtin.load("digits").raw
    scores = session.run(None, {one.name: raw.parts[one.name] for one in session.get_inputs()})[0]
    assert np.mean(scores.argmax(axis=1) == raw.y) > 0.25  # one epoch; by chance it is a tenth
    props = session.get_modelmeta().custom_metadata_map
    assert json.loads(props["classes"]) == list(raw.info.classes)
    assert props["job"] == job.id


@postgres_in_torture
def test_an_export_that_fails_does_not_fail_the_job(train, told, monkeypatch):
    monkeypatch.setattr(exports, "TOLERANCE", -1.0)
    job, outcome = train(export=["pt2"])
    assert job.status == "succeeded"
    names = {file.name for file in outcome.artifacts}
    assert {"model.safetensors", "model.json"} <= names
    assert "model.pt2" not in names
    [event] = told(job, "export.failed")
    assert (event["name"], event["code"]) == ("model.pt2", "export_differs")


def test_what_nobody_foresaw_does_not_fail_the_job_either(train, told, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(exports, "export", broken)
    job, _ = train(export=["onnx"])
    assert job.status == "succeeded"
    [event] = told(job, "export.failed")
    assert event["code"] == "export_failed"
    assert "secret" not in event["message"]


def test_no_export_is_begun_once_the_process_must_end(tmp_path):
    exporter = Exporter.__new__(Exporter)
    exporter._split = "validation"
    heard = []
    made = export_all(exporter, ["pt2", "onnx"], tmp_path, tell=heard.append, must_end=lambda: True)
    assert made == heard
    assert [one.as_dict()["code"] for one in made] == ["export_left_out", "export_left_out"]


@pytest.fixture
def settings(database_url, data_dir):
    return Settings(database_url=database_url, data_dir=data_dir)


@postgres_in_torture
def test_afterwards_from_the_weights(train, settings, tmp_path):
    job, _ = train()
    output = tmp_path / "new"
    path, exported = export_model(settings, job.id, "pt2", output, force=False)
    assert path == output / f"{job.id}.pt2"
    assert exported.check.samples == job.plan["validation_samples"]
    assert [one.name for one in output.iterdir()] == [path.name]
    with pytest.raises(ConfigurationError, match="is there already; --force replaces it"):
        export_model(settings, job.id, "pt2", output, force=False)


def test_what_cannot_be_exported_is_said(settings, queue, database, tmp_path):
    with pytest.raises(NotFoundError, match="there is no job job_none"):
        export_model(settings, "job_none", "onnx", tmp_path, force=False)
    job = queue(LINEAR)
    with pytest.raises(NotFoundError, match="is queued and has no weights"):
        export_model(settings, job.id, "onnx", tmp_path, force=False)


@postgres_in_torture
def test_by_command(train, settings, tmp_path):
    job, _ = train()
    flags = ["--database-url", settings.database_url, "--data-dir", str(settings.data_dir)]
    command = [
        sys.executable,
        "-m",
        "epochd",
        "export",
        job.id,
        "--to",
        "onnx",
        "--output",
        str(tmp_path),
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    path = tmp_path / f"{job.id}.onnx"
    assert done.stdout.splitlines()[0] == str(path)
    assert "checked on 359 validation samples" in done.stdout
    assert path.stat().st_size
    refused = subprocess.run([*command, "--points", "5"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--points are for what a job recorded" in refused.stderr
