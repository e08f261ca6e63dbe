"""The rows of a table as arrays, batch by batch."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from epochd.datasets.raw import MISSING_CODE, MISSING_DATE, Array
from epochd.datasets.readers.table_columns import parse
from epochd.datasets.readers.table_features import Feature
from epochd.datasets.readers.table_scan import Table
from epochd.datasets.readers.table_target import Target
from epochd.datasets.readers.table_text import too_large
from epochd.datasets.reading import Limits
from epochd.datasets.stored import TARGETS, StoredWriter

_ITEM_BYTES: Final = {"number": 4, "boolean": 4, "category": 4, "date": 8}


def write_arrays(
    table: Table, features: Sequence[Feature], target: Target, limits: Limits, writer: StoredWriter
) -> None:
    """Write ``numbers``, ``dates``, ``codes`` and ``y`` as ``RawData`` says.

    Raises InvalidDatasetError (``too_large_unpacked``).
    """
    numbers = [each for each in features if each.column.type in ("number", "boolean")]
    dates = [each for each in features if each.column.type == "date"]
    codes = [each for each in features if each.column.type == "category"]
    for batch in table.scan([*(each.column.name for each in features), *target.forms]):
        writer.append(
            "numbers", _stacked([_numbers(batch, each) for each in numbers], len(batch), np.float32)
        )
        writer.append("dates", _stacked([_dates(batch, each) for each in dates], len(batch), np.int64))
        writer.append("codes", _stacked([_codes(batch, each) for each in codes], len(batch), np.int32))
        writer.append(TARGETS, target.rows(batch))
        if writer.bytes > limits.unpacked_bytes:
            raise too_large(table.source, limits)


def row_bytes(features: Sequence[Feature]) -> int:
    """Bytes that a row's features take."""
    return sum(_ITEM_BYTES[each.column.type] for each in features)


def _stacked(columns: Sequence[Array], rows: int, dtype: type[np.generic]) -> Array:
    if not columns:
        return np.empty((rows, 0), dtype)
    return np.stack(columns, axis=1)


def _numbers(batch: pl.DataFrame, feature: Feature) -> Array:
    values = parse(batch[feature.column.name], feature.form)
    return values.cast(pl.Float32).fill_null(float("nan")).to_numpy()


def _dates(batch: pl.DataFrame, feature: Feature) -> Array:
    values = parse(batch[feature.column.name], feature.form).dt.cast_time_unit("us")
    return values.to_physical().fill_null(MISSING_DATE).to_numpy()


def _codes(batch: pl.DataFrame, feature: Feature) -> Array:
    categories = pl.Enum(feature.column.categories or ())
    codes = parse(batch[feature.column.name], feature.form).cast(pl.String).cast(categories).to_physical()
    return codes.cast(pl.Int32).fill_null(MISSING_CODE).to_numpy()
