"""Clients that nobody here wrote, generated from the OpenAPI document, run a job: one in Python, one in TypeScript."""

import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import Service

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "openapi.json"
IN_PYTHON = """
import sys
from generated import Client
from generated.api.jobs import create_job, diagnose_job, get_job
from generated.models import JobSpec, MlpModel

client = Client(base_url=sys.argv[1], timeout=60, raise_on_unexpected_status=True)
spec = JobSpec(dataset="iris", epochs=3, batch_size=16, model=MlpModel(name="mlp", hidden_sizes=[8]))
job = create_job.sync(client=client, body=spec)
done = get_job.sync(job.id, client=client, wait_seconds=60)
print(done.status, done.progress.epoch, diagnose_job.sync(job.id, client=client).verdict)
"""
IN_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./epochd";

const client = createClient<paths>({ baseUrl: process.argv[2] });
const body: components["schemas"]["JobSpec"] = {
  dataset: "iris", epochs: 3, batch_size: 16, model: { name: "mlp", hidden_sizes: [8] },
};
async function run() {
  const { data: job, error } = await client.POST("/v1/jobs", { body });
  if (!job) throw new Error(JSON.stringify(error));
  const { data: done } = await client.GET("/v1/jobs/{job_id}", {
    params: { path: { job_id: job.id }, query: { wait_seconds: 60 } },
  });
  const { data: found } = await client.GET("/v1/jobs/{job_id}/diagnosis", { params: { path: { job_id: job.id } } });
  console.log(done?.status, done?.progress.epoch, found?.verdict);
}
run();
"""
PACKAGES = ["openapi-typescript@7", "openapi-fetch@0.14", "typescript@5", "tsx@4", "@types/node@22"]

pytestmark = pytest.mark.torture


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    data = tmp_path / "data"
    service = Service(tmp_path, f"sqlite:///{data / 'epochd.db'}", data)
    try:
        yield service.url
    finally:
        service.client.close()
        service.end()
        service.kill_all()


def run(directory: Path, *command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_in_python(url: str, tmp_path: Path):
    """The generator wants other versions of what we have, and so a place of its own."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    run(tmp_path, python, "-m", "pip", "install", "-q", "openapi-python-client==0.29.1")
    path = f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}"
    generate = ["generate", "--path", str(DOCUMENT), "--output-path", "generated", "--meta", "none"]
    said = run(tmp_path, "openapi-python-client", *generate, PATH=path)
    assert "WARNING" not in said  # of what it leaves out
    (tmp_path / "job.py").write_text(IN_PYTHON)
    assert run(tmp_path, python, "job.py", url) == "succeeded 3 undetermined\n"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node")
def test_in_typescript(url: str, tmp_path: Path):
    run(tmp_path, "npm", "init", "-y")
    run(tmp_path, "npm", "install", "--no-audit", "--no-fund", *PACKAGES)
    run(
        tmp_path,
        "npx",
        "openapi-typescript",
        str(DOCUMENT),
        "-o",
        "epochd.ts",
        "--default-non-nullable=false",
    )
    (tmp_path / "job.ts").write_text(IN_TYPESCRIPT)
    strict = [
        "--strict",
        "--noEmit",
        "--skipLibCheck",
        "--module",
        "nodenext",
        "--moduleResolution",
        "nodenext",
    ]
    run(tmp_path, "npx", "tsc", *strict, "job.ts")
    assert run(tmp_path, "npx", "tsx", "job.ts", url) == "succeeded 3 undetermined\n"
