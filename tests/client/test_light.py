"""The client and its commands need nothing of the server: they run where none of it can be imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {
    "pillow": "PIL", "scikit-learn": "sklearn", "prometheus-client": "prometheus_client", "nvidia-ml-py": "pynvml",
    "python-multipart": "python_multipart", "python-ulid": "ulid",
}  # fmt: skip
NAMES = [one.split(">")[0].split("[")[0].split("<")[0] for one in PROJECT["optional-dependencies"]["server"]]
BLOCKED = [MODULES.get(name, name) for name in NAMES]
BLOCK = f"""
import importlib.machinery, sys

class Absent(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            return None
        return super().find_spec(name, path, target)

sys.meta_path[:] = [Absent if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
"""


def run(code):
    """Run it in a process in which the server's packages are not installed."""
    command = [sys.executable, "-c", BLOCK + code]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_the_server_is_indeed_absent():
    assert {"torch", "sqlalchemy", "fastapi", "uvicorn", "numpy"} <= set(BLOCKED)
    assert "No module named 'torch'" in run("import torch").stderr


@pytest.fixture
def trained(server, trainer):
    from epochd import Client

    with Client(server.url) as client:
        job = client.jobs.submit(dataset="iris", epochs=4, batch_size=12)
        trainer.start().iterate(10)
        trainer.complete_epoch()
        trainer.finish()
        yield server.url, job.id


def test_the_client_and_the_commands_work_without_it(trained):
    url, job = trained
    done = run(
        f"""
from epochd import Client
job = Client({url!r}).jobs.get({job!r})
print(job.wait().status, [event.type for event in job.stream()][-1], len(job.iterations()["train_loss"]))
import sys
from epochd import cli
sys.argv = ["epochd", "show", {job!r}, "--url", {url!r}]
cli.main()
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("succeeded job.succeeded 10\n")
    assert "1 epochs, 10 iterations" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", ["serve", "worker", "demo"])
def test_a_command_of_the_service_says_what_to_install(command, tmp_path):
    flags = [] if command == "demo" else ["--data-dir", str(tmp_path)]
    done = run(
        f"import sys; from epochd import cli; sys.argv = ['epochd', {command!r}, *{flags!r}]; cli.main()"
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'epochd[server]'" in done.stderr.splitlines()[-1]
