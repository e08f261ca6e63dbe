"""An operator's package, installed by pip as an operator does it, and trained by a service that knows nothing of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.packages import install

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).parent / "acme_models"
REBUILD = """
import sys
from pathlib import Path
import torch
from epochd.training import weights
model, description = weights.load(Path(sys.argv[1]))
with torch.no_grad():
    print(tuple(model(torch.zeros(5, *description["input_shape"])).shape))
"""


@pytest.fixture
def database_kind():
    return "sqlite"


@pytest.fixture
def installed(tmp_path):
    """A directory with the package, built and installed without any network."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(PACKAGE, source)  # a build leaves files beside what it builds
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", target, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_readme_shows_this_package():
    readme = (ROOT / "README.md").read_text()
    assert f"```python\n{(PACKAGE / 'acme_models.py').read_text()}```" in readme
    assert '[project.entry-points."epochd.models"]\ngated_mlp = "acme_models"\n' in readme


def test_an_installed_package_is_offered_checked_and_trained(installed, start_service, wait_until, tmp_path):
    install(installed, "raise RuntimeError('no licence')", "broken", package="broken-models")
    service = start_service(PYTHONPATH=str(installed))
    client = service.client

    def offered():
        found = {one["name"]: one for one in client.get("/v1/models").raise_for_status().json()["data"]}
        return found if "gated_mlp" in found else None

    described = wait_until(offered, "the worker has published its models")
    assert "broken" not in described
    assert "no licence" in service.errors
    assert described["gated_mlp"]["defaults"] == {"width": 64, "depth": 2}
    assert described["gated_mlp"]["package"] == {"name": "acme-models", "version": "1.0"}
    spec = {"dataset": "digits", "epochs": 3, "batch_size": 64, "model": {"name": "gated_mlp", "depth": 40}}
    refused = client.post("/v1/jobs", json=spec)
    assert [one["param"] for one in refused.json()["errors"]] == ["model.depth"]
    job = service.wait(service.submit(**{**spec, "model": {"name": "gated_mlp", "width": 16}}))
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert job["spec"]["model"] == {"name": "gated_mlp", "width": 16, "depth": 2}
    assert job["metrics"]["validation_accuracy"] > 0.5
    _rebuild(service.artifacts(job["id"]), tmp_path / "weights", installed)


def _rebuild(files, folder, installed):
    """Whoever has the weights and the package has the model."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    [layer] = json.loads(files["model.json"])["architecture"]
    assert (layer["type"], layer["name"]) == ("OperatorModel", "gated_mlp")
    environment = {"PYTHONPATH": f"{installed}:{ROOT / 'service'}"}
    done = subprocess.run(
        [sys.executable, "-c", REBUILD, folder],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.strip() == "(5, 10)", done.stderr
