"""Tables: CSV, Parquet and Arrow, of any size, in memory that does not grow with it.

A table is read twice: once to see what its columns hold, once to write them; a CSV once more before, to see that its
lines are whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from epochd.datasets.info import DatasetInfo
from epochd.datasets.readers.table_arrays import row_bytes, write_arrays
from epochd.datasets.readers.table_check import check_start, check_text
from epochd.datasets.readers.table_choice import Choice, choose
from epochd.datasets.readers.table_columns import ColumnScan, forms_of
from epochd.datasets.readers.table_dialect import find_dialect
from epochd.datasets.readers.table_features import Feature, Note, settle_features
from epochd.datasets.readers.table_preview import preview
from epochd.datasets.readers.table_scan import Table, csv_table, lazy_table
from epochd.datasets.readers.table_stream import stream_table
from epochd.datasets.readers.table_target import Target, settle_target
from epochd.datasets.readers.table_text import head, too_large
from epochd.datasets.reading import Contents, Limits, Options, Source
from epochd.datasets.stored import StoredWriter
from epochd.errors import InvalidDatasetError

MAX_COLUMNS: Final = 10_000
_HEAD_BYTES: Final = 2**18
_ARROW_FILE: Final = b"ARROW1"


def read_csv(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """CSV, plain or packed by gzip or zstd: separator, header and types are inferred.

    Raises InvalidDatasetError; the codes are listed where each is raised: ``table_text``, ``table_dialect``,
    ``table_check``, ``table_choice``, ``table_target``, ``table_features``.
    """
    start = check_start(head(source, limits, _HEAD_BYTES), source)
    dialect = find_dialect(start, source, header=options.header)
    _check_width(len(dialect.columns), source)
    check_text(source, limits, dialect)
    notes: list[Note] = []
    if dialect.inferred and not dialect.header:
        message = "The first line holds values and is no header, so columns are called column_1, column_2, …"
        notes = [{"code": "no_header", "message": f"{message}; send header=true if it is one."}]
    return _read(csv_table(source, dialect), options, limits, writer, notes)


def read_parquet(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Parquet, row group by row group. Raises InvalidDatasetError, as ``read_csv`` does."""
    frame = pl.scan_parquet(source.path, glob=False, hive_partitioning=False)
    return _read(lazy_table(source, "parquet", frame), options, limits, writer, [])


def read_arrow(source: Source, options: Options, limits: Limits, writer: StoredWriter) -> Contents:
    """Arrow IPC, in the file format (Feather 2) or the stream format. Raises InvalidDatasetError, as ``read_csv``."""
    with source.path.open("rb") as file:
        is_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
    if is_file:
        frame = pl.scan_ipc(source.path, glob=False, hive_partitioning=False)
        return _read(lazy_table(source, "arrow", frame), options, limits, writer, [])
    return _read(stream_table(source), options, limits, writer, [])


def _read(
    table: Table, options: Options, limits: Limits, writer: StoredWriter, notes: Sequence[Note]
) -> Contents:
    _check_width(len(table.schema), table.source)
    choice = choose(table, options)
    scans = _scanned(table, choice, limits)
    target = settle_target([scans[name] for name in choice.target], options.task, table.source)
    features, remarks = settle_features(
        [scans[name] for name in choice.features], table.source, given=choice.given
    )
    rows = scans[choice.target[0]].rows
    if rows * row_bytes(features) > limits.unpacked_bytes:
        raise too_large(table.source, limits)
    write_arrays(table, features, target, limits, writer)
    said = [*notes, *choice.notes, *_task_note(target, options), *remarks, *_rare(target)]
    info = _info(options, rows, features, target)
    return Contents(info, table.format, preview(table, features, target), said)


def _scanned(table: Table, choice: Choice, limits: Limits) -> Mapping[str, ColumnScan]:
    names = [*choice.features, *choice.target]
    scans = {
        name: ColumnScan(name, forms, counting=name in choice.target or "category" in forms)
        for name in names
        if (forms := forms_of(table.schema[name], typed=table.typed, separator=table.separator))
    }
    for batch in table.scan(names):
        for scan in scans.values():
            scan.add(batch[scan.name])
        # What is predicted alone takes four bytes a row: more rows than can be written need not be read.
        if 4 * scans[names[0]].rows > limits.unpacked_bytes:
            raise too_large(table.source, limits)
    if not scans[names[0]].rows:
        message = f"{table.source.name!r} has columns and no rows; a data set has a row for each sample."
        raise InvalidDatasetError(message, "no_rows", file=table.source.name)
    return scans


def _check_width(columns: int, source: Source) -> None:
    if columns > MAX_COLUMNS:
        message = (
            f"{source.name!r} has {columns} columns; a table has at most {MAX_COLUMNS}: send arrays as NPZ."
        )
        raise InvalidDatasetError(message, "too_many_columns", file=source.name)


def _info(options: Options, rows: int, features: Sequence[Feature], target: Target) -> DatasetInfo:
    return DatasetInfo(
        name=options.name,
        task=target.task,
        samples=rows,
        shape=(len(features),),
        classes=target.classes,
        targets=0 if target.classes is not None else len(target.forms),
        description="",
        kind="table",
        columns=tuple(feature.column for feature in features),
        target_names=tuple(target.forms),
        class_counts=target.counts,
    )


def _task_note(target: Target, options: Options) -> list[Note]:
    if options.task is not None:
        return []
    other = "regression" if target.task == "classification" else "classification"
    what = f"{len(target.classes)} classes" if target.classes is not None else "numbers"
    message = f"The target has {what}, so this is a {target.task}; send task={other} if it is not."
    return [{"code": "task_inferred", "message": message}]


def _rare(target: Target) -> list[dict[str, Any]]:
    single = [
        name for name, count in zip(target.classes or (), target.counts or (), strict=True) if count == 1
    ]
    if not single:
        return []
    message = f"{len(single)} of the classes have a single sample, such as {single[0]!r}: it cannot be in both splits."
    return [{"code": "rare_classes", "message": message}]
