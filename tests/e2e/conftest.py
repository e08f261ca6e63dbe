"""Real services, each a tree of processes started as a user starts it."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

START_SECONDS = 60
WAIT_SECONDS = 90
ENDLESS = {
    "dataset": "digits",
    "epochs": 100_000,
    "batch_size": 32,
    "model": {"name": "mlp", "hidden_sizes": [64]},
}
QUIET = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}


def wait_until(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait for a condition to hold, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain until {what}")
        time.sleep(0.05)
    return value


class Command:
    """An ``epochd`` command and all processes that descend from it, orphans included."""

    def __init__(self, directory: Path, *arguments: str, **environment: str) -> None:
        # Inherited by every descendant, whoever its parent is in the end.
        self._token = uuid.uuid4().hex
        self._out = directory / f"{self._token}.out"
        self._err = directory / f"{self._token}.err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "epochd", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**QUIET, **environment, "E2E_TOKEN": self._token},
                cwd=directory,
                process_group=0,
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    @property
    def errors(self) -> str:
        return self._err.read_text()

    def processes(self) -> list[psutil.Process]:
        """All that are alive, this one included."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return (
                process.status() != psutil.STATUS_ZOMBIE and process.environ().get("E2E_TOKEN") == self._token
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def workers(self) -> list[psutil.Process]:
        return [process for process in self.processes() if "epochd.worker" in process.cmdline()]

    def runners(self) -> list[psutil.Process]:
        """The processes that the fork server has forked, one a running attempt."""
        servers = [process for process in self.processes() if "forkserver" in " ".join(process.cmdline())]
        pids = {process.pid for process in servers}
        return [process for process in servers if process.ppid() in pids]

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.send(signal_number)
        return self.process.wait(60)

    def kill_all(self) -> None:
        for process in self.processes():
            process.kill()
        self.process.wait(30)


class Service(Command):
    """``epochd serve`` on a free port."""

    def __init__(
        self, directory: Path, database_url: str, data_dir: Path, *flags: str, **environment: str
    ) -> None:
        arguments = ["--port", "0", "--data-dir", str(data_dir), "--database-url", database_url, *flags]
        super().__init__(directory, "serve", *arguments, **environment)
        self.url = wait_until(self._find_url, "the service has started", START_SECONDS)
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def _find_url(self) -> str | None:
        if self.process.poll() is not None:
            pytest.fail(f"the service ended with code {self.process.returncode}: {self.errors}")
        found = re.search(r"^\s*API\s+(http://\S+)$", self.output, re.MULTILINE)
        return found[1] if found else None

    def submit(self, **spec: Any) -> str:
        """Post a job and return its id."""
        answer = self.client.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.client.get(f"/v1/jobs/{job_id}").raise_for_status().json()

    def wait(
        self, job_id: str, condition: Callable[[dict[str, Any]], Any] = lambda job: job["done"]
    ) -> dict[str, Any]:
        """Poll a job until it fulfils the condition, and return it."""
        try:
            wait_until(lambda: condition(self.job(job_id)), "the job has come so far")
        except pytest.fail.Exception:
            pytest.fail(f"it never came to that: {self.job(job_id)}\n{self.errors[-5000:]}")
        return self.job(job_id)

    def events(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            parameters = {"after": found[-1]["seq"] if found else 0, "limit": 200}
            page = self.client.get(
                f"/v1/jobs/{job_id}/events", params=parameters, headers={"Accept": "application/json"}
            )
            found += page.raise_for_status().json()["data"]
            if page.json()["next"] is None:
                return found

    def iterations(self, job_id: str) -> list[int]:
        """The numbers of all recorded iterations, in the order of the answers."""
        found: list[int] = []
        after: int | None = 0
        while after is not None:
            page = self.client.get(f"/v1/jobs/{job_id}/iterations", params={"after": after, "limit": 5000})
            found += page.raise_for_status().json()["columns"]["iteration"]
            after = page.json()["next"]
        return found

    def epochs(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.client.get(f"/v1/jobs/{job_id}/epochs", params={"after": after})
            found += page.raise_for_status().json()["data"]
            after = page.json()["next"]
        return found

    def end_soon(self, job_id: str) -> dict[str, Any]:
        """Let a long job end some epochs on, and return it."""

        def amended() -> bool:
            epochs = self.job(job_id)["progress"]["epoch"] + 3
            answer = self.client.patch(f"/v1/jobs/{job_id}", json={"epochs": epochs})
            # It may have come farther in the meantime.
            assert answer.status_code == 200 or "epochs_already_completed" in answer.text, answer.text
            return answer.status_code == 200

        wait_until(amended, "the number of epochs was accepted")
        return self.wait(job_id)

    def artifacts(self, job_id: str) -> dict[str, bytes]:
        """The content of each artifact by its name."""
        listed = self.client.get(f"/v1/jobs/{job_id}/artifacts").raise_for_status().json()["data"]
        return {
            entry["name"]: self.client.get(f"/v1/jobs/{job_id}/artifacts/{entry['name']}")
            .raise_for_status()
            .content
            for entry in listed
        }


@pytest.fixture
def start_command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start ``epochd`` commands; whatever is left of them after the test is killed."""
    started: list[Command] = []

    def start(*arguments: str, **environment: str) -> Command:
        started.append(Command(tmp_path, *arguments, **environment))
        return started[-1]

    yield start
    for command in started:
        command.kill_all()


@pytest.fixture
def make_service(tmp_path: Path, data_dir: Path) -> Iterator[Callable[..., Service]]:
    """Start services on a database that the test names; whatever is left of them after the test is killed."""
    started: list[Service] = []

    def make(url: str, *flags: str, **environment: str) -> Service:
        started.append(Service(tmp_path, url, data_dir, *flags, **environment))
        return started[-1]

    yield make
    for service in started:
        service.client.close()
        service.kill_all()


@pytest.fixture
def start_service(make_service: Callable[..., Service], database_url: str) -> Callable[..., Service]:
    """Start services on the test's database."""
    return functools.partial(make_service, database_url)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests of a module that leave it as they found it."""
    directory = tmp_path_factory.mktemp("service")
    data_dir = directory / "data"
    if request.param == "sqlite":
        url = f"sqlite:///{directory / 'epochd.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        url = server.url(server.create(migrated=False))
    running = Service(directory, url, data_dir)
    running.database_url = url  # type: ignore[attr-defined]
    running.data_dir = data_dir  # type: ignore[attr-defined]
    yield running
    running.client.close()
    code = running.end()
    left = running.processes()
    running.kill_all()
    assert code == 0, running.errors
    assert left == []


@pytest.fixture
def endless() -> dict[str, Any]:
    """A job that trains for hours if nobody stops it."""
    return dict(ENDLESS)


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Any]:
    return wait_until
