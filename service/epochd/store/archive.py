"""Iterations that were moved out of the database, into a Parquet file: how it is written and read.

Its rows are sorted by attempt and iteration. Its footer says, under ``epochd``, where each attempt is, and the digest
of all values. What was read is compared with these, so that a damaged file never answers with wrong numbers.
"""

import errno
import logging
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import orjson

from epochd.errors import ArchiveUnreadableError, ServiceUnavailableError
from epochd.store import parquet, thrift
from epochd.store.blocks import COLUMNS, Float32Array, dump, epochs_of
from epochd.store.tables import BLOCK_ITERATIONS
from epochd.store.thrift import Field

log = logging.getLogger("epochd.store")

ARTIFACT: Final = "metrics.parquet"
MEDIA_TYPE: Final = "application/vnd.apache.parquet"
ROWS: Final = ("attempt", "iteration", "epoch", *COLUMNS)
"""The columns of the file."""

_FORMAT: Final = 1
_KEY: Final = "epochd"
_GROUP: Final = parquet.ROW_GROUP
_GROUPS_AT_HAND: Final = 16
"""Row groups that stay in memory for the next request, 1 MB each at most."""
_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_MAGIC: Final = b"PAR1"
_FILE_METADATA: Final = 5  # the number of the field in parquet.thrift, as are these two
_NAME, _VALUE = 1, 2

Row = tuple[int, int, int, *tuple[str, ...]]
"""What a row of ``tables.iteration_blocks`` is read as: first iteration, iterations, iterations an epoch, texts."""


@dataclass(frozen=True, slots=True)
class Archived:
    """An attempt in the file: its iterations ``first … last`` are there from row ``row`` (counted from 0) on."""

    id: int
    number: int
    first: int
    last: int
    iterations_per_epoch: int
    row: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What the footer says: the job, its attempts, and of each column the digests of the row groups' values."""

    job: str
    attempts: tuple[Archived, ...]
    digests: Mapping[str, tuple[int, ...]]

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return sum(one.last - one.first + 1 for one in self.attempts)


@dataclass(slots=True)
class Run:
    """Consecutive iterations of an attempt, as they are to be written."""

    attempt: int
    first: int
    iterations_per_epoch: int
    values: dict[str, Float32Array]


def write(file: BinaryIO, job: str, attempts: Sequence[Archived], runs: Iterable[Run]) -> Contents:
    """Write a file, opened for writing and reading; ``runs`` are all iterations of all ``attempts``, in order.

    Memory holds a row group. Raises what ``runs`` raises, and OSError.
    """
    digests: dict[str, list[int]] = {name: [] for name in COLUMNS}
    parquet.write(file, _digested(_grouped(runs), digests), parquet.iteration_types(ROWS))
    contents = Contents(job, tuple(attempts), {name: tuple(found) for name, found in digests.items()})
    _annotate(file, _KEY, orjson.dumps({"format": _FORMAT, **asdict(contents)}))
    return contents


def _grouped(runs: Iterable[Run]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Give parts of exactly one row group each, but for the last."""
    gathered: list[dict[str, npt.NDArray[Any]]] = []
    missing = _GROUP
    for run in runs:
        part = _columns(run)
        while len(part["iteration"]) >= missing:
            yield _joined([*gathered, {name: values[:missing] for name, values in part.items()}])
            part = {name: values[missing:] for name, values in part.items()}
            gathered, missing = [], _GROUP
        gathered.append(part)
        missing -= len(part["iteration"])
    if missing < _GROUP:
        yield _joined(gathered)


def _columns(run: Run) -> dict[str, npt.NDArray[Any]]:
    length = len(run.values[COLUMNS[0]])
    numbers = np.arange(run.first, run.first + length, dtype=np.int64)
    return {
        "attempt": np.full(length, run.attempt, dtype=np.int32),
        "iteration": numbers,
        "epoch": epochs_of(numbers, run.iterations_per_epoch),
        **run.values,
    }


def _joined(parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in ROWS}


def _digested(
    parts: Iterable[dict[str, npt.NDArray[Any]]], digests: Mapping[str, list[int]]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    for part in parts:
        for name, found in digests.items():
            found.append(_digest(part[name]))
        yield part


def _digest(values: Float32Array) -> int:
    # A missing value is NaN on both sides, of which there are many.
    return zlib.crc32(np.where(np.isnan(values), np.float32(np.nan), values).tobytes())


def _annotate(file: BinaryIO, key: str, value: bytes) -> None:
    """Add to the key-value metadata of a Parquet file: only now it is known what was written."""
    end = file.seek(-8, os.SEEK_END)
    begin = end - int.from_bytes(file.read(4), "little")
    file.seek(begin)
    footer = thrift.parse(file.read(end - begin))
    entry = {_NAME: Field(thrift.BINARY, key.encode()), _VALUE: Field(thrift.BINARY, value)}
    known = footer.get(_FILE_METADATA, Field(thrift.LIST, thrift.List(thrift.STRUCT, [])))
    known.value.elements.append(entry)
    footer[_FILE_METADATA] = known
    written = thrift.dump(dict(sorted(footer.items())))
    file.seek(begin)
    file.write(written + len(written).to_bytes(4, "little") + _MAGIC)
    file.truncate()


def contents(path: Path) -> Contents:
    """Read what a file says of itself.

    Raises:
        ArchiveUnreadableError: it is missing, or not such a file.

    """
    return _Archive.open(path).contents


def blocks(
    directory: Path, archive: str, attempt_id: int, numbers: range, columns: Sequence[str]
) -> Iterator[Row]:
    """Read the blocks of these numbers that an archived attempt has, just as they stood in the database.

    ``archive`` is the attempt's, relative to ``directory``.

    Raises:
        ArchiveUnreadableError: the file is missing, damaged, or does not hold this attempt.
        ServiceUnavailableError: the process has too many files open, or too little memory.

    """
    opened = _Archive.open(directory / archive)
    mine = opened.attempt(attempt_id)
    for block in numbers:
        first = max(mine.first, block * BLOCK_ITERATIONS + 1)
        last = min(mine.last, (block + 1) * BLOCK_ITERATIONS)
        if first <= last:
            found = opened.values(columns, mine.row + first - mine.first, mine.row + last - mine.first + 1)
            texts = (dump(values).decode() for values in found)
            yield (first, last - first + 1, mine.iterations_per_epoch, *texts)


@dataclass(frozen=True, slots=True)
class _Archive:
    """A file as it is now: ``stamp`` tells it from what was there before under the same name."""

    path: Path
    stamp: tuple[int, ...]
    contents: Contents = field(hash=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> "_Archive":
        try:
            found = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
        return cls(path, stamp, _contents(path, stamp))

    def attempt(self, attempt_id: int) -> Archived:
        for one in self.contents.attempts:
            if one.id == attempt_id:
                return one
        raise _unreadable(self.path, f"it does not hold attempt {attempt_id}")

    def values(self, columns: Sequence[str], begin: int, end: int) -> list[Float32Array]:
        """Read rows ``begin`` up to ``end``."""
        if not columns:
            return []
        parts = []
        for group in range(begin // _GROUP, (end - 1) // _GROUP + 1):
            found = _group(self, tuple(columns), group)
            start, stop = max(begin - group * _GROUP, 0), end - group * _GROUP
            parts.append([values[start:stop] for values in found])
        return (
            parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        )


@lru_cache(maxsize=64)
def _contents(path: Path, stamp: tuple[int, ...]) -> Contents:  # noqa: ARG001 - of what is there now
    import polars as pl  # noqa: PLC0415 - an API should start faster than this is imported

    with _Readable(path):
        said = orjson.loads(pl.read_parquet_metadata(path)[_KEY])
        if said["format"] != _FORMAT or said["job"] != path.parent.name:
            raise ValueError("it is of another version or another job")
        attempts = tuple(Archived(**one) for one in said["attempts"])
        return Contents(said["job"], attempts, {name: tuple(said["digests"][name]) for name in COLUMNS})


@lru_cache(maxsize=_GROUPS_AT_HAND)
def _group(archive: _Archive, columns: tuple[str, ...], number: int) -> list[Float32Array]:
    """Read columns of one row group."""
    import polars as pl  # noqa: PLC0415 - see above

    with _Readable(archive.path):
        frame = pl.scan_parquet(archive.path).slice(number * _GROUP, _GROUP).select(columns).collect()
        found = [frame[name].to_numpy() for name in columns]
        for name, values in zip(columns, found, strict=True):
            if values.dtype != np.float32 or _digest(values) != archive.contents.digests[name][number]:
                raise ValueError(f"row group {number} of {name} is not what was written")
        return found


class _Readable:
    """Whatever goes wrong inside is the file's fault, but for what the process itself is short of."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        from polars.exceptions import PanicException  # noqa: PLC0415 - see above

        if isinstance(error, MemoryError):
            return
        if isinstance(error, OSError) and _errno(error) in _SHORTAGES:
            log.error("%s cannot be read just now: %s", self._path, error)
            raise ServiceUnavailableError(
                "The iterations of this job cannot be read just now: the service has too many files open, or too "
                "little memory; try again."
            ) from error
        # polars panics over some damaged files, which is no Exception.
        if isinstance(error, Exception | PanicException):
            raise _unreadable(self._path, error) from error


def _errno(error: OSError) -> int | None:
    # polars tells it in its message only.
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else error.errno


def _unreadable(path: Path, reason: object) -> ArchiveUnreadableError:
    log.error("%s cannot be read: %r", path, reason)
    return ArchiveUnreadableError(
        "The iterations of this job were moved to its artifact metrics.parquet, which is missing or damaged; "
        "they can be read again once the operator has restored it."
    )
