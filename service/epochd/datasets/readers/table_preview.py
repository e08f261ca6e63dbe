"""The first rows of a table, as JSON."""

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from epochd.datasets.readers.table_columns import BOOLEAN, CATEGORY, NUMBERS, parse
from epochd.datasets.readers.table_features import Feature
from epochd.datasets.readers.table_scan import Table
from epochd.datasets.readers.table_target import Target

ROWS: Final = 10
COLUMNS: Final = 100
CHARACTERS: Final = 100


def preview(table: Table, features: Sequence[Feature], target: Target) -> dict[str, Any]:
    """Show ten rows of the first hundred features, and the target, as they were read; null is missing."""
    shown = {each.column.name: each.form for each in features[:COLUMNS]} | dict(target.forms)
    columns = list(shown)
    batches = table.scan(columns)
    first = next(batches).head(ROWS)
    values = [_values(first[name], form) for name, form in shown.items()]
    return {"columns": columns, "rows": [list(row) for row in zip(*values, strict=True)]}


def _values(column: pl.Series, form: str) -> list[Any]:
    read = parse(column, form)
    if form in (BOOLEAN, CATEGORY):
        return [_text(value) for value in read.to_list()]
    return [_number(value) if form in NUMBERS else _date(value) for value in read.to_list()]


def _text(value: Any) -> Any:
    cut = isinstance(value, str) and len(value) > CHARACTERS
    return f"{value[:CHARACTERS]}…" if cut else value


def _number(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def _date(value: dt.datetime | None) -> str | None:
    return None if value is None else value.isoformat()
