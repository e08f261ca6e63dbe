"""What a table's target is: the classes of a classification, or the numbers of a regression."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from epochd.datasets.info import Task
from epochd.datasets.raw import Array
from epochd.datasets.readers.table_columns import (
    BOOLEAN,
    MAX_CATEGORIES,
    MAX_CATEGORY_LENGTH,
    MAX_NUMBER,
    ColumnScan,
    parse,
)
from epochd.datasets.reading import Source
from epochd.errors import InvalidDatasetError

FEW_NUMBERS: Final = 20
"""Up to so many different whole numbers are taken for the numbers of classes."""


@dataclass(frozen=True, slots=True)
class Target:
    """``keys`` are the classes as they are read (numbers, booleans or text), in the order of their labels."""

    task: Task
    forms: Mapping[str, str]
    classes: tuple[str, ...] | None = None
    counts: tuple[int, ...] | None = None
    keys: pl.Series | None = None

    def rows(self, batch: pl.DataFrame) -> Array:
        """Labels int64 (n,), or float32 (n, targets)."""
        read = [parse(batch[name], form) for name, form in self.forms.items()]
        if self.keys is None:
            columns = [values.cast(pl.Float32).to_numpy() for values in read]
            return np.ascontiguousarray(np.stack(columns, axis=1))
        labels = pl.Series(range(len(self.keys)), dtype=pl.Int64)
        return read[0].replace_strict(self.keys, labels, return_dtype=pl.Int64).to_numpy()


def settle_target(scans: Sequence[ColumnScan], task: Task | None, source: Source) -> Target:
    """Settle task and classes.

    Raises InvalidDatasetError: ``missing_target``, ``date_target``, ``several_targets``, ``non_numeric_target``,
    ``infinite_value``, ``one_class``, ``too_many_classes``, ``constant_target``.
    """
    for scan in scans:
        _check_present(scan, source)
    if (task or infer_task(scans)) == "regression":
        return _regression(scans, task, source)
    if len(scans) > 1:
        message = f"A classification has one target, not {len(scans)}; name one, or send task=regression."
        raise InvalidDatasetError(message, "several_targets", param="target", file=source.name)
    return _classification(scans[0], source)


def infer_task(scans: Sequence[ColumnScan]) -> Task:
    """Infer the task: one column of text, booleans, or few whole numbers, holds classes."""
    if len(scans) > 1:
        return "regression"
    (scan,) = scans
    if not scan.is_number:
        return "classification"
    few = scan.whole and scan.counts is not None and len(_keys(scan)) <= FEW_NUMBERS
    return "classification" if few else "regression"


def check_finite(scan: ColumnScan, source: Source) -> None:
    """Raise InvalidDatasetError (``infinite_value``) for a number that float32 cannot hold."""
    if scan.is_number and scan.infinite is not None:
        row, value = scan.infinite
        raise InvalidDatasetError(
            f"Row {row} of {source.name!r} has {value} in the column {scan.name!r}; numbers are finite and at most "
            f"{MAX_NUMBER:.2e}, a missing one is left empty.",
            "infinite_value",
            file=source.name,
            row=row,
            column=scan.name,
        )


def _check_present(scan: ColumnScan, source: Source) -> None:
    if scan.first_missing is not None:
        raise InvalidDatasetError(
            f"The target {scan.name!r} has no value in {scan.missing} of {scan.rows} rows, first in row "
            f"{scan.first_missing} of {source.name!r}; fill it in, or leave these rows out.",
            "missing_target",
            file=source.name,
            row=scan.first_missing,
            column=scan.name,
        )
    if scan.is_date:
        message = f"The target {scan.name!r} of {source.name!r} is a date; predict a number or a class."
        raise _wrong(message, "date_target", scan, source)
    check_finite(scan, source)


def _regression(scans: Sequence[ColumnScan], task: Task | None, source: Source) -> Target:
    for scan in scans:
        if not (scan.is_number or scan.form == BOOLEAN):
            raise _non_numeric(scan, task, source)
        if scan.constant:
            message = f"The target {scan.name!r} of {source.name!r} has one value in every row; nothing can be learned."
            raise _wrong(message, "constant_target", scan, source)
    return Target("regression", {scan.name: scan.form for scan in scans})


def _non_numeric(scan: ColumnScan, task: Task | None, source: Source) -> InvalidDatasetError:
    row, value = scan.misfit or (None, None)
    where = f"row {row} of {source.name!r} has {value!r}" if row else f"{source.name!r} has text"
    instead = "send task=classification" if task else "name one target for a classification"
    return InvalidDatasetError(
        f"A regression predicts numbers, but {where} in the target {scan.name!r}; correct it, or {instead}.",
        "non_numeric_target",
        param="target" if row is None else "file",
        file=source.name,
        row=row,
        column=scan.name,
    )


def _classification(scan: ColumnScan, source: Source) -> Target:
    if scan.counts is None:
        raise _too_many(scan, source)
    keys = _keys(scan)
    classes = tuple(_name(value) for value in keys["key"])
    if len(classes) == 1:
        message = (
            f"The target {scan.name!r} of {source.name!r} has the class {classes[0]!r} in every row; a classification "
            "needs at least two."
        )
        raise _wrong(message, "one_class", scan, source)
    counts = tuple(int(count) for count in keys["count"])
    return Target("classification", {scan.name: scan.form}, classes, counts, keys["key"])


def _keys(scan: ColumnScan) -> pl.DataFrame:
    """Give the classes in their order; 1, 1.0 and 01 are the same number."""
    assert scan.counts is not None
    keys = scan.counts.select(parse(scan.counts["value"], scan.form).alias("key"), "count")
    return keys.group_by("key").agg(pl.col("count").sum()).sort("key")


def _name(key: object) -> str:
    if isinstance(key, bool):
        return str(key).lower()
    if isinstance(key, float):
        return str(int(key)) if key.is_integer() else repr(key)
    return str(key)


def _too_many(scan: ColumnScan, source: Source) -> InvalidDatasetError:
    what = (
        f"labels longer than {MAX_CATEGORY_LENGTH} bytes"
        if scan.long
        else f"more than {MAX_CATEGORIES} classes"
    )
    instead = "send task=regression" if scan.is_number else "is another column the target?"
    message = f"The target {scan.name!r} of {source.name!r} has {what}; {instead}"
    return _wrong(
        message.removesuffix(".") + ("." if scan.is_number else ""), "too_many_classes", scan, source
    )


def _wrong(message: str, code: str, scan: ColumnScan, source: Source) -> InvalidDatasetError:
    return InvalidDatasetError(message, code, param="target", file=source.name, column=scan.name)
