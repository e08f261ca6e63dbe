"""How fast a whole series is written as CSV, NDJSON and Parquet, and with how much memory.

    python bench/formats.py [--iterations 1000000] [--rounds 5] [--quick]

Measured is everything between the database (SQLite) and the bytes of the file, which are thrown away, each variant in
a process of its own: rows a second, the file's size, and the most memory beyond what the process had before. Ours reads
and writes the series in parts, as `GET /v1/jobs/{id}/iterations?format=` does. The peers first read it whole, as
arrays, and then write it with `csv.writer` or `json.dumps` row by row, or as a pandas data frame.
"""

import argparse
import csv
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from epochd.store import attempts, files, jobs, metrics, migrate, series
from epochd.store.database import Database
from epochd.store.jobs import JobRow, NewJob
from epochd.store.metrics import Block
from epochd.store.tables import BLOCK_ITERATIONS

Columns = Mapping[str, Any]


class Counted(io.RawIOBase):
    """Takes bytes or text and keeps their number."""

    def __init__(self) -> None:
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)


def ours(db: Database, job: JobRow, kind: Any) -> int:
    with db.read() as tx:
        opened = series.open_iterations(tx, job)
    return sum(len(chunk) for chunk in files.of_iterations(kind, db, opened))


def read(db: Database, job: JobRow) -> Columns:
    with db.read() as tx:
        return metrics.iteration_columns(tx, job)


def rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    lists = ([None if value != value else value for value in column.tolist()] for column in columns.values())  # noqa: PLR0124 - NaN
    return zip(*lists, strict=True)


def csv_writer(db: Database, job: JobRow) -> int:
    columns, target = read(db, job), Counted()
    writer = csv.writer(target)
    writer.writerow(columns)
    writer.writerows(rows(columns))
    return target.size


def json_dumps(db: Database, job: JobRow) -> int:
    columns = read(db, job)
    return sum(len(json.dumps(dict(zip(columns, row, strict=True)))) + 1 for row in rows(columns))


def pandas(method: str, **options: Any) -> Callable[[Database, JobRow], int]:
    def write(db: Database, job: JobRow) -> int:
        from pandas import DataFrame  # noqa: PLC0415 - perhaps not installed

        target = io.BytesIO()
        getattr(DataFrame(read(db, job)), method)(target, **options)
        return target.tell()

    return write


VARIANTS: dict[str, Callable[[Database, JobRow], int]] = {
    "CSV, epochd": lambda db, job: ours(db, job, "csv"),
    "CSV, csv.writer": csv_writer,
    "CSV, pandas": pandas("to_csv", index=False),
    "NDJSON, epochd": lambda db, job: ours(db, job, "ndjson"),
    "NDJSON, json.dumps": json_dumps,
    "NDJSON, pandas": pandas("to_json", orient="records", lines=True),
    "Parquet, epochd": lambda db, job: ours(db, job, "parquet"),
    "Parquet, pandas": pandas("to_parquet", compression="zstd"),
}


def available() -> list[str]:
    missing = not (find_spec("pandas") and find_spec("pyarrow"))
    return [name for name in VARIANTS if not (missing and name.endswith("pandas"))]


def record(url: str, iterations: int) -> str:
    """Make a database with one job, and give its id."""
    migrate.upgrade(url)
    db, random = Database(url), np.random.default_rng(0)
    with db.write() as tx:
        plan = {"iterations_per_epoch": 1000, "total_iterations": iterations}
        job = jobs.insert(tx, NewJob("job_1", None, {"epochs": 1}, plan, [], {}, 0, None, ""))
        claimed = jobs.claim(tx, worker="bench", device="cpu", lease_seconds=600)
        assert claimed is not None
        for begin in range(0, iterations, 100 * BLOCK_ITERATIONS):
            end = min(begin + 100 * BLOCK_ITERATIONS, iterations)
            starts = range(begin, end, BLOCK_ITERATIONS)
            blocks = [block(random, start, min(start + BLOCK_ITERATIONS, end)) for start in starts]
            metrics.record_iterations(tx, claimed.attempt_id, 1000, blocks)
        attempts.finish(tx, claimed.attempt_id, outcome="succeeded")
    db.close()
    return job.id


def block(random: np.random.Generator, start: int, stop: int) -> Block:
    values = random.random((4, stop - start), np.float32)
    return Block(start // BLOCK_ITERATIONS, *values)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(url: str, job_id: str, name: str) -> None:
    """Print seconds, bytes of the file and bytes of memory: what a child process does."""
    db = Database(url)
    with db.read() as tx:
        job = jobs.get(tx, job_id)
    for module in ("polars", "pandas", "pyarrow.parquet"):
        if find_spec(module.partition(".")[0]):
            __import__(module)  # importing is no part of it
    before, start = peak_bytes(), time.perf_counter()
    size = VARIANTS[name](db, job)
    print(json.dumps([time.perf_counter() - start, size, peak_bytes() - before]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a smoke run: few iterations, one round")
    parser.add_argument("--measure", nargs=3, metavar=("URL", "JOB", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure)
        return
    iterations, rounds = (20_000, 1) if options.quick else (options.iterations, options.rounds)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'bench.db'}"
        job_id = record(url, iterations)
        print_table(iterations, compare(url, job_id, rounds))


def compare(url: str, job_id: str, rounds: int) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {name: [] for name in available()}
    for _ in range(rounds):
        for name, measured in found.items():
            command = [sys.executable, __file__, "--measure", url, job_id, name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            measured.append(json.loads(done.stdout))
    return found


def print_table(iterations: int, found: Mapping[str, list[list[float]]]) -> None:
    print(f"{iterations:,} iterations, median of {len(next(iter(found.values())))} rounds\n")
    print(f"{'':22}{'rows/s':>12}{'ratio':>8}{'file':>10}{'memory':>10}")
    first: dict[str, float] = {}
    for name, measured in found.items():
        seconds, size, memory = (median(values) for values in zip(*measured, strict=True))
        fastest = first.setdefault(name.partition(",")[0], seconds)
        print(
            f"{name:22}{iterations / seconds:>12,.0f}{seconds / fastest:>7.2f}x"
            f"{size / 1e6:>7.1f} MB{memory / 1e6:>7.1f} MB"
        )


if __name__ == "__main__":
    main()
