"""What a job recorded as two files, of its iterations and of its epochs: both whole, or none."""

import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from epochd.errors import ConfigurationError
from epochd.store import files, series
from epochd.store.database import Database
from epochd.store.jobs import JobRow

Kind = Literal["csv", "parquet"]


def write_files(  # noqa: PLR0913 - what, where to, and how
    db: Database,
    job: JobRow,
    kind: Kind,
    directory: Path,
    *,
    force: bool,
    progress: Callable[[int], None],
) -> tuple[str, ...]:
    """Write ``<job>-iterations.<kind>`` and ``<job>-epochs.<kind>``; values that are not finite are left empty.

    Raises ConfigurationError when a file cannot be written, or is there already and not to be replaced.
    """
    paths = [directory / f"{job.id}-{name}.{kind}" for name in ("iterations", "epochs")]
    for path in paths:
        if path.is_dir():
            raise ConfigurationError(f"{path} is a directory")
        if path.exists() and not force:
            raise ConfigurationError(f"{path} is there already; --force replaces it")
    partial = [path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial") for path in paths]
    try:
        with ExitStack() as on_the_way_out:
            for path in partial:
                on_the_way_out.callback(path.unlink, missing_ok=True)
            _write(partial[0], _iterations(db, job, kind, progress))
            _write(partial[1], _epochs(db, job, kind))
            _settle(list(zip(partial, paths, strict=True)))
    except OSError as error:
        raise ConfigurationError(f"cannot write to {directory}: {error.strerror or error}") from error
    return tuple(str(path) for path in paths)


def _settle(found: Sequence[tuple[Path, Path]]) -> None:
    """Give files their names, all or none; what had these names is gone when all have them."""
    former = [(path, written.with_suffix(".former")) for written, path in found if path.exists()]
    with ExitStack() as back:
        for path, aside in former:
            path.replace(aside)
            back.callback(aside.replace, path)
        for written, path in found:
            written.replace(path)
            back.callback(path.unlink)
        back.pop_all()
    for _, aside in former:
        aside.unlink()


def _iterations(db: Database, job: JobRow, kind: Kind, progress: Callable[[int], None]) -> Iterator[bytes]:
    with db.read() as tx:
        opened = series.open_iterations(tx, job)
    return files.of_iterations(kind, db, opened, progress)


def _epochs(db: Database, job: JobRow, kind: Kind) -> Iterator[bytes]:
    with db.read() as tx:
        opened = series.open_epochs(tx, job)
    return files.of_epochs(kind, db, opened)


def _write(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())
