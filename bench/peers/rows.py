"""Other ways to keep an iteration's metrics: rows in SQLite and Postgres, and MLflow with its SQLite store."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = Sequence[npt.NDArray[np.float32]]
NAMES = ("train_loss", "learning_rate", "gradient_norm", "samples_per_second")
MLFLOW_BATCH = 1000
"""What one call of log_batch takes at most."""


@dataclass(frozen=True)
class Recorded:
    """How many iterations were recorded, in how many seconds, and in how many bytes on disk."""

    iterations: int
    seconds: float
    bytes: float


def rows(columns: Columns) -> Iterator[tuple[int, int, float, float, float, float]]:
    """An iteration a row, after the number of its run."""
    for iteration, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1):
        yield 1, iteration, *values


def timed(work: Callable[[], object]) -> float:
    """Seconds of the wall that a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


TABLE = f"CREATE TABLE points (run BIGINT, iteration BIGINT, {', '.join(f'{n} %s' for n in NAMES)}, %s)"
KEY = "PRIMARY KEY (run, iteration)"


def _sqlite(folder: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "rows.db", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(TABLE % (*["REAL"] * 4, KEY))
    return connection


def _sqlite_bytes(connection: sqlite3.Connection) -> int:
    pages, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * size)


INSERT = "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?)"


def sqlite_row_a_commit(folder: Path, columns: Columns) -> Recorded:
    """A statement and a commit for each iteration."""
    connection = _sqlite(folder)

    def work() -> None:
        for row in rows(columns):
            connection.execute(INSERT, row)  # without a transaction around it, it commits

    seconds = timed(work)
    return Recorded(len(columns[0]), seconds, _sqlite_bytes(connection))


def sqlite_bulk(folder: Path, columns: Columns) -> Recorded:
    """All rows through executemany, in one transaction."""
    connection = _sqlite(folder)

    def work() -> None:
        connection.execute("BEGIN")
        connection.executemany(INSERT, rows(columns))
        connection.execute("COMMIT")

    seconds = timed(work)
    return Recorded(len(columns[0]), seconds, _sqlite_bytes(connection))


def _postgres(url: str, columns: Columns, work: Callable[[Any], None]) -> Recorded:
    import psycopg  # noqa: PLC0415 - as the other peers

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS points")
        cursor.execute(TABLE % (*["REAL"] * 4, KEY))
        connection.commit()

        def work_and_commit() -> None:
            work(cursor)
            connection.commit()

        seconds = timed(work_and_commit)
        cursor.execute("SELECT pg_total_relation_size('points')")
        found = cursor.fetchone()
        assert found is not None
        return Recorded(len(columns[0]), seconds, found[0])


def postgres_executemany(url: str, columns: Columns) -> Recorded:
    """All rows through executemany, in one transaction."""
    statement = INSERT.replace("?", "%s")
    return _postgres(url, columns, lambda cursor: cursor.executemany(statement, rows(columns)))


def postgres_copy(url: str, columns: Columns) -> Recorded:
    """All rows through COPY, in one transaction."""

    def work(cursor: Any) -> None:
        with cursor.copy("COPY points FROM STDIN") as copy:
            for row in rows(columns):
                copy.write_row(row)

    return _postgres(url, columns, work)


def has_mlflow() -> bool:
    """Whether it is installed."""
    return find_spec("mlflow") is not None


class MLflow:
    """A store of its own in a folder, made once: to make it takes longer than to record."""

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient  # noqa: PLC0415 - takes seconds, and may be missing

        self._file = folder / "mlflow.db"
        self._client = MlflowClient(f"sqlite:///{self._file}")
        self._experiment = self._client.create_experiment("bench", artifact_location=str(folder / "mlflow"))

    def point_by_point(self, columns: Columns) -> Recorded:
        """A call of log_metric for each value."""
        return self._record(columns, self._log_points)

    def batches(self, columns: Columns) -> Recorded:
        """As many values in a call of log_batch as it takes."""
        return self._record(columns, self._log_batches)

    def _record(self, columns: Columns, log: Callable[[str, Columns], None]) -> Recorded:
        run = self._client.create_run(self._experiment).info.run_id
        before = self._bytes()
        seconds = timed(lambda: log(run, columns))
        return Recorded(len(columns[0]), seconds, self._bytes() - before)

    def _log_points(self, run: str, columns: Columns) -> None:
        for _, iteration, *values in rows(columns):
            for name, value in zip(NAMES, values, strict=True):
                self._client.log_metric(run, name, value, step=iteration)

    def _log_batches(self, run: str, columns: Columns) -> None:
        from mlflow.entities import Metric  # noqa: PLC0415

        points = [
            Metric(name, value, 0, iteration)
            for _, iteration, *values in rows(columns)
            for name, value in zip(NAMES, values, strict=True)
        ]
        for begin in range(0, len(points), MLFLOW_BATCH):
            self._client.log_batch(run, metrics=points[begin : begin + MLFLOW_BATCH])

    def _bytes(self) -> int:
        connection = sqlite3.connect(self._file)
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return _sqlite_bytes(connection)
        finally:
            connection.close()
