"""Samples as a program has them, one mapping each, for those who apply a model without a data set."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from epochd.datasets.preprocessing.rows import Array
from epochd.datasets.preprocessing.steps import Inputs
from epochd.datasets.preprocessing.table import TableSteps
from epochd.datasets.preprocessing.texts import TextSteps
from epochd.datasets.raw import MISSING_DATE
from epochd.errors import DataError

Records = Sequence[Mapping[str, Any]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def table_inputs(steps: TableSteps, records: Records) -> Inputs:
    """A value for each column, None where it is missing; dates as ``datetime``, ``date`` or ISO 8601, else in UTC.

    Raises ``DataError`` that names row and column.
    """
    inputs: dict[str, Array] = {}
    if steps.numbers:
        names = [column.name for column in steps.numbers]
        inputs["numbers"] = _part(records, names, float, np.nan, np.float32)
    if steps.dates:
        names = [column.name for column in steps.dates]
        inputs["dates"] = _part(records, names, microseconds, MISSING_DATE, np.int64)
    if steps.categories:
        columns = [_codes(records, column.name, column.values) for column in steps.categories]
        inputs["codes"] = np.concatenate(columns, axis=1)
    return inputs


def text_inputs(steps: TextSteps, texts: Sequence[str]) -> Inputs:
    """The tokens of texts."""
    return {"tokens": steps.tokenizer.tokens(texts, len(texts))}


def microseconds(value: str | date) -> int:
    """Since 1970 in UTC. Raises ValueError for a text that is no date."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    passed = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def _codes(records: Records, name: str, values: Sequence[str]) -> Array:
    positions = {value: position for position, value in enumerate(values, start=1)}
    return _part(records, [name], lambda value: positions.get(str(value), 0), 0, np.int32)


def _part(
    records: Records,
    names: Sequence[str],
    convert: Callable[[Any], Any],
    missing: float,
    dtype: type[np.generic],
) -> Array:
    rows = [
        [_value(record, row, name, convert, missing) for name in names] for row, record in enumerate(records)
    ]
    return np.array(rows, dtype).reshape(len(records), len(names))


def _value(
    record: Mapping[str, Any], row: int, name: str, convert: Callable[[Any], Any], missing: float
) -> Any:
    if name not in record:
        raise DataError(f"Row {row} has no column {name!r}; send null for a value that is missing.")
    value = record[name]
    if value is None:
        return missing
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"Row {row}, column {name!r}: {value!r} cannot be read: {error}") from error
