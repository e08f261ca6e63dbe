"""What training measured as files: each an iterator that reads the next part when it is asked for the next chunk."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import orjson

from epochd.store import parquet, series
from epochd.store.database import Database
from epochd.store.metrics import EpochRow
from epochd.store.series import EpochSeries, IterationSeries
from epochd.store.tabular import csv_of_columns, csv_of_rows, ndjson_of_columns, ndjson_of_rows

Format = Literal["json", "csv", "ndjson", "parquet"]
"""What series are asked for in; the first is no file."""
Part = TypeVar("Part")

_COLUMN: Final = re.compile(rb'"([a-z_]+)":\[([^\]]*)\]')
_BEFORE_METRICS: Final = ("epoch", "train_loss", "validation_loss")
_AFTER_METRICS: Final = ("learning_rate", "seconds", "is_best")


def of_iterations(
    kind: Format, db: Database, found: IterationSeries, progress: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    """Write iterations; the iterator raises what ``series.column_parts`` does.

    ``progress`` is told how many were read and written so far.
    """
    if kind == "parquet":
        columns = _told(series.column_parts(db, found), lambda part: len(part["iteration"]), progress)
        return parquet.encode(columns, parquet.iteration_types(found.names))
    texts = _told(series.text_parts(db, found), lambda part: part["iteration"].count(",") + 1, progress)
    return _lines(kind, found.names, texts)


def _told(
    parts: Iterable[Part], size: Callable[[Part], int], progress: Callable[[int], None] | None
) -> Iterator[Part]:
    done = 0
    for part in parts:
        yield part
        done += size(part)
        if progress is not None:
            progress(done)


def of_points(kind: Format, answer: bytes) -> Iterator[bytes]:
    """Write what is answered as JSON, ``{"columns": {…}, "next": …}``, as a file."""
    if kind == "parquet":
        columns = orjson.loads(answer)["columns"]
        return parquet.encode([columns], parquet.iteration_types(columns))
    # Not parsed: the numbers are to be spelt as they are.
    texts = {name.decode(): text.decode() for name, text in _COLUMN.findall(answer)}
    return _lines(kind, list(texts), [texts])


def _lines(kind: Format, names: Sequence[str], parts: Iterable[Mapping[str, str]]) -> Iterator[bytes]:
    return csv_of_columns(names, parts) if kind == "csv" else ndjson_of_columns(names, parts)


def of_epochs(kind: Format, db: Database, found: EpochSeries) -> Iterator[bytes]:
    """Write epochs, with a column for every metric that any of them has; raises what ``series.epoch_parts`` does."""
    fixed = (*_BEFORE_METRICS, *_AFTER_METRICS)
    metrics = [name for name in series.metric_names(db, found) if name not in fixed]
    names = [*_BEFORE_METRICS, *metrics, *_AFTER_METRICS]
    parts = ([show_epoch(row) for row in part] for part in series.epoch_parts(db, found))
    if kind == "parquet":
        columns = ({name: [row.get(name) for row in rows] for name in names} for rows in parts)
        return parquet.encode(columns, parquet.epoch_types(names))
    return csv_of_rows(names, parts) if kind == "csv" else ndjson_of_rows(names, parts)


def show_epoch(row: EpochRow) -> dict[str, Any]:
    """Show an epoch as the contract does."""
    nothing = {"train_loss": None, "validation_loss": None}
    measured = {"learning_rate": row.learning_rate, "seconds": row.seconds, "is_best": row.is_best}
    return {"epoch": row.epoch} | nothing | row.metrics | measured
