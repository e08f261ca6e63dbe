"""``epochd export``: one job, once, to a tool or into files; read from the database, which nothing is written to."""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from epochd.errors import ConfigurationError, MirrorAwayError, NotFoundError
from epochd.mirror import reading
from epochd.mirror.files import write_files
from epochd.mirror.mlflow import Mlflow
from epochd.mirror.reading import Position
from epochd.mirror.targets import Run, mirror_key
from epochd.mirror.tensorboard import TensorBoard
from epochd.settings import Settings
from epochd.store import jobs, metrics, mirrors
from epochd.store.database import Database, parse_url
from epochd.store.jobs import JobRow
from epochd.store.migrate import check_current

Kind = Literal["tensorboard", "mlflow", "csv", "parquet"]
Progress = Callable[[int, int], None]
"""Told how many iterations are done, and how many there are."""
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Order:
    """What to export where. ``output`` is a directory; ``points`` None: every iteration."""

    to: Kind
    output: Path | None = None
    mlflow_uri: str | None = None
    points: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of it: places to look at, and how many iterations were read."""

    places: tuple[str, ...]
    iterations: int


def export(settings: Settings, job_id: str, order: Order, progress: Progress) -> Exported:
    """Export what a job has recorded by now.

    Raises ConfigurationError for an order that cannot be carried out, NotFoundError for a job that is not there or has
    recorded nothing, MirrorError when the target does not take it, and DatabaseUnavailableError.
    """
    _refuse_contradictions(order)
    with _database(settings) as db:
        with db.read() as tx:
            job = jobs.get(tx, job_id)
            iterations = metrics.last_iteration(tx, job)
        if iterations == 0:
            message = f"{job_id} has recorded no iterations yet; it is {job.status}"
            raise NotFoundError(message, code="nothing_recorded")
        places = _export(db, job, order, lambda done: progress(min(done, iterations), iterations))
        progress(iterations, iterations)
    return Exported(places, iterations)


def _refuse_contradictions(order: Order) -> None:
    if order.to == "mlflow" and order.output is not None:
        raise ConfigurationError("--output is for files; an MLflow server is named by --mlflow-uri")
    if order.to != "mlflow" and order.mlflow_uri is not None:
        raise ConfigurationError(f"--mlflow-uri is for --to mlflow, not for --to {order.to}")
    if order.to in {"csv", "parquet"} and order.points is not None:
        raise ConfigurationError(f"--points is for tensorboard and mlflow; --to {order.to} writes everything")
    if order.to == "mlflow" and order.force:
        raise ConfigurationError("--force is for files; MLflow gets a new run each time")


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    url = parse_url(settings.resolved_database_url)
    # SQLite would make the file.
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise ConfigurationError(f"there is no database {url.database}; see --data-dir and --database-url")
    db = Database(settings.resolved_database_url, archives=settings.artifacts_dir.resolve())
    try:
        check_current(db)
        yield db
    finally:
        db.close()


def _export(db: Database, job: JobRow, order: Order, progress: Callable[[int], None]) -> tuple[str, ...]:
    match order.to:
        case "tensorboard":
            return _to_tensorboard(db, job, order, progress)
        case "mlflow":
            return _to_mlflow(db, job, order, progress)
        case "csv" | "parquet" as kind:
            directory = _made(order.output or Path())
            return write_files(db, job, kind, directory, force=order.force, progress=progress)


def _to_tensorboard(
    db: Database, job: JobRow, order: Order, progress: Callable[[int], None]
) -> tuple[str, ...]:
    directory, key = _made(order.output or Path("runs")), mirror_key(job)
    target = TensorBoard(directory)
    there = target.find(key)
    if there is not None:
        _refuse_to_replace(db, job, directory / there, target.name, force=order.force)
    with _beside(directory, job) as workshop:
        run = TensorBoard(workshop).open(job, None, key=key)
        try:
            _send(db, job, run, order.points, target.rows, progress)
        finally:
            run.close()
        target.replace(there or run.name, workshop / run.name)
        return (str(directory / (there or run.name)),)


def _refuse_to_replace(db: Database, job: JobRow, path: Path, target: str, *, force: bool) -> None:
    if not force:
        raise ConfigurationError(f"{path} is there already; --force replaces it")
    if not path.is_dir():
        raise ConfigurationError(f"{path} is no directory")
    with db.read() as tx:
        if mirrors.is_sent_now(tx, job.number, target, path.name):
            raise ConfigurationError(f"{path} is being written by the mirror; name another --output")


@contextmanager
def _beside(directory: Path, job: JobRow) -> Iterator[Path]:
    """Give a place to write at first, so that what is there goes when there is something better."""
    path = directory / f".{job.id}.{secrets.token_hex(4)}.partial"
    try:
        path.mkdir()
    except OSError as error:
        raise MirrorAwayError(f"cannot write to {directory}: {error.strerror or error}") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _to_mlflow(db: Database, job: JobRow, order: Order, progress: Callable[[int], None]) -> tuple[str, ...]:
    uri = order.mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not re.match(r"^https?://\S+$", uri):
        raise ConfigurationError("name the MLflow server: --mlflow-uri http://mlflow:5000")
    target = Mlflow(uri, timeout_seconds=TIMEOUT_SECONDS)
    try:
        # A run of its own: what the mirror has may be thinned.
        run = target.open(job, None, key=f"export-{job.id}-{secrets.token_hex(4)}")
        try:
            _send(db, job, run, order.points, target.rows, progress)
        except BaseException:
            target.delete(run.name)
            raise
        return (target.page(run.name),)
    finally:
        target.close()


def _send(  # noqa: PLR0913, PLR0917 - what, where to, and how
    db: Database, job: JobRow, run: Run, points: int | None, rows: int, progress: Callable[[int], None]
) -> None:
    position, complete = Position(), False
    every = 1 if points is None else reading.every(job, points)
    while not complete:
        with db.read() as tx:
            if jobs.by_number(tx, job.number) is None:
                raise NotFoundError(f"{job.id} was deleted meanwhile", code="job_not_found")
            helping = reading.read(tx, job, position, every=every, rows=rows)
        run.log(helping.series)
        position, complete = helping.position, helping.complete
        progress(position.iteration)
    run.describe(job)


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot make the directory {directory}: {error.strerror}") from None
    return directory
