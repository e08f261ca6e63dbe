"""How fast a series is read, whole as 1000 points and in slices, on SQLite and Postgres.

    python bench/reading.py [--iterations 10000000] [--rounds 15] [--quick]

Jobs of 10 000 iterations, ten times as many, and so on are recorded as a recorder does, in transactions of 64 blocks
with the rows of reduced levels that these complete. Then each is read as the API gives it, ready to be sent: reduced
to at most 1000 points (all four columns; train_loss alone; of that the middle third, as one zooms in; its means), and
a slice of 100 000 iterations as JSON.
Peers, in turns with that, on the first 100 000 iterations: a row an iteration in the same database, reduced to the
extremes of 499 buckets by SQL or by numpy; and MLflow's SQLite store, which gives its whole history, or 1000 values
sampled from it whatever their extremes. Both give Python objects, not yet JSON.

Milliseconds of the wall, median and p99, and of this process's CPU, median. The last column compares with what epochd
takes to reduce train_loss for the same iterations.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import plots
from peers.rows import Columns
from recording import ITERATIONS_PER_EPOCH, claimed, columns, postgres

from epochd.store import metrics, migrate
from epochd.store.database import Database
from epochd.store.jobs import Claim
from epochd.training.events import IterationsCompleted
from epochd.worker.blocks import BlockBuffer

AT_ONCE = 64 * 1024
SLICE = 100_000
COMPARED = "train_loss as 1000 points"


@dataclass
class Timings:
    """Seconds of the wall and of CPU that the calls of one case took."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], Any]) -> None:
        """Time one call."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def record(db: Database, data: Columns) -> Claim:
    """Record a job as a recorder does, in transactions of 64 blocks."""
    claim, buffer = claimed(db), BlockBuffer()
    for begin in range(0, len(data[0]), AT_ONCE):
        buffer.add(IterationsCompleted(1, begin + 1, *(column[begin : begin + AT_ONCE] for column in data)))
        with db.write() as tx:
            rows = buffer.unwritten_levels()
            metrics.record_iterations(tx, claim.attempt_id, ITERATIONS_PER_EPOCH, buffer.unwritten(), rows)
        buffer.written()
    return claim


def reduce(db: Database, claim: Claim, **options: Any) -> bytes:
    """Read a whole series as 1000 points."""
    with db.read() as tx:
        return metrics.reduced(tx, claim.job, 1000, **options)


def read_slice(db: Database, claim: Claim) -> bytes:
    """Read 100 000 iterations."""
    with db.read() as tx:
        return metrics.iterations_json(tx, claim.job, limit=SLICE)


def our_cases(db: Database, sizes: list[int]) -> dict[tuple[int, str], plots.Reader]:
    """Record the jobs; give what is read of each."""
    cases: dict[tuple[int, str], plots.Reader] = {}
    for size in sizes:
        whole = partial(reduce, db, record(db, columns(size)))
        cases[size, "four columns as 1000 points"] = whole
        cases[size, COMPARED] = partial(whole, fields=["train_loss"])
        third = {"after": size // 3 + 137, "up_to": 2 * size // 3 + 11}  # bounds that no bucket has
        cases[size, "train_loss of the middle third"] = partial(whole, fields=["train_loss"], **third)
        cases[size, "means of train_loss"] = partial(whole, fields=["train_loss"], reduction="mean")
    cases[sizes[-1], f"a slice of {min(SLICE, sizes[-1]):,} as JSON"] = partial(read_slice, db, whole.args[1])
    return cases


def peer_cases(db: Database, directory: Path, size: int) -> dict[tuple[int, str], plots.Reader]:
    """Keep the same losses as peers do; give how each reads them."""
    loss = columns(size)[0]
    found: Mapping[str, plots.Reader] = plots.rows(db, loss)
    if db.dialect == "sqlite":
        found = {**found, **plots.mlflow(directory, loss)}
    return {(size, name): reader for name, reader in found.items()}


def measure(db: Database, directory: Path, sizes: list[int], rounds: int) -> None:
    """Print one database's figures."""
    peers = peer_cases(db, directory, min(SLICE, sizes[-1]))
    cases = our_cases(db, sizes) | peers
    timings = {case: Timings() for case in cases}
    for read in cases.values():  # once, so that what is timed is in memory
        read()
    for _ in range(rounds):
        for case, read in cases.items():
            timings[case].take(read)
    print(f"{db.dialect:<44}{'median':>9}{'p99':>9}{'CPU':>9}{'ratio':>8}")
    for (size, name), timing in timings.items():
        ours = np.median(timings[size, COMPARED].wall)
        median, p99, cpu = np.median(timing.wall), np.quantile(timing.wall, 0.99), np.median(timing.cpu)
        row = "".join(f"{value * 1e3:9.1f}" for value in (median, p99, cpu))
        print(f"  {size:>11,}  {name:<29}{row}{median / ours:7.1f}x")


def run(url: str, directory: Path, sizes: list[int], rounds: int) -> None:
    """Migrate a database and measure it."""
    migrate.upgrade(url)
    db = Database(url)
    try:
        measure(db, directory, sizes, rounds)
    finally:
        db.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="see that it works: 5000 iterations, 2 rounds")
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    arguments = parser.parse_args()
    iterations, rounds = (5000, 2) if arguments.quick else (arguments.iterations, arguments.rounds)
    sizes = sorted({min(10**power, iterations) for power in range(4, 20)})
    print(f"{os.cpu_count()} cores, {rounds} rounds, milliseconds")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        if arguments.only != "postgres":
            run(f"sqlite:///{directory}/epochd.db", Path(directory), sizes, rounds)
        if arguments.only != "sqlite":
            with postgres(Path(directory) / "postgres") as url:
                run(url, Path(directory), sizes, rounds)


if __name__ == "__main__":
    main()
