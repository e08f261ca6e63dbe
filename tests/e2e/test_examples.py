"""Each example works against a service that runs, as its reader would start it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from nbclient import NotebookClient
from tests.e2e.conftest import Service, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    directory = tmp_path_factory.mktemp("examples")
    data = directory / "data"
    service = Service(directory, f"sqlite:///{data / 'epochd.db'}", data)
    try:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        yield {**os.environ, "PATH": path, "EPOCHD_URL": service.url}
    finally:
        service.client.close()
        service.end()
        service.kill_all()


def run(environment: dict[str, str], directory: Path, *command: str) -> Any:
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_example_is_named_by_the_page():
    page = (EXAMPLES / "README.md").read_text()
    for file in EXAMPLES.iterdir():
        assert file.suffix == ".md" or file.is_dir() or f"[{file.name}]({file.name})" in page


def test_curl(environment: dict[str, str], tmp_path: Path):
    done = run(environment, tmp_path, "bash", str(EXAMPLES / "curl.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "event: epoch.completed" in done.stdout
    assert "event: job.succeeded" in done.stdout
    assert (tmp_path / "model.safetensors").stat().st_size > 50_000


def test_a_script(environment: dict[str, str], tmp_path: Path):
    done = run(environment, tmp_path, sys.executable, str(EXAMPLES / "train.py"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "succeeded: underfitting" in done.stdout
    assert "next: Train longer" in done.stdout
    assert "succeeded: good_fit" in done.stdout
    assert (tmp_path / "weights" / "model.safetensors").exists()


def test_a_notebook(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("PATH", "EPOCHD_URL"):
        monkeypatch.setenv(name, environment[name])
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    done = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output["data"] for cell in done.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("<polyline" in one.get("text/html", "") for one in shown) == 1
    assert sum("dataframe" in one.get("text/html", "") for one in shown) == 2
    assert (tmp_path / "weights" / "model.safetensors").exists()


def test_a_pipeline(environment: dict[str, str], tmp_path: Path):
    done = run(environment, tmp_path, "bash", str(EXAMPLES / "ci.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "weights/model.safetensors" in done.stdout
    strict = run({**environment, "LEAST_ACCURACY": "1.01"}, tmp_path, "bash", str(EXAMPLES / "ci.sh"))
    assert strict.returncode == 1
    assert "the accuracy is below 1.01" in strict.stderr


def test_another_service(environment: dict[str, str], tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(EXAMPLES),
        "service:app",
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            _use(f"http://127.0.0.1:{port}", tmp_path)
        finally:
            process.terminate()
    assert process.returncode in {0, -15}


def _use(url: str, directory: Path) -> None:
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=8), timeout=30) as client:
        wait_until(lambda: _answers(client), "the other service runs")
        assert client.get("/models/iris").status_code == 404
        assert client.post("/models/nothing", params={"epochs": 3}).status_code == 502
        assert client.post("/models/iris", params={"epochs": 3}).status_code == 202
        ready = wait_until(
            lambda: (found := client.get("/models/iris").json())["ready"] and found, "it is ready"
        )
    assert ready["status"] == "succeeded"
    assert (directory / "models" / "iris" / "model.safetensors").exists()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/models/none").status_code == 404
    except httpx.TransportError:
        return False
