"""Tables: numbers, dates and categories, any of which may be missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from epochd.datasets.encoding import Encoding
from epochd.datasets.info import Column, ColumnType, DatasetInfo
from epochd.datasets.preprocessing.categories import CategoryColumn, fit_categories
from epochd.datasets.preprocessing.dates import DateColumn, fit_dates, missing_dates
from epochd.datasets.preprocessing.rows import (
    Array,
    Rows,
    chunks,
    row_at,
    take,
)
from epochd.datasets.preprocessing.standardisation import Standardisation
from epochd.datasets.preprocessing.steps import Inputs, ReadInputs
from epochd.datasets.raw import RawData
from epochd.errors import DataError

NUMBERS: Final[tuple[ColumnType, ...]] = ("number", "boolean")
PARTS: Final[dict[str, tuple[ColumnType, ...]]] = {
    "numbers": NUMBERS,
    "dates": ("date",),
    "codes": ("category",),
}
"""Which columns are in which part of a table."""


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """``indicator`` tells of a column that says where the number is missing."""

    name: str
    indicator: bool = False


@dataclass(frozen=True)
class TableSteps:
    """``inputs`` has ``numbers`` float32, ``dates`` int64, ``codes`` int32 positions; one without columns is left out.

    A missing number is replaced by the mean of the training split, a missing date by the mean date.
    """

    encoding: Encoding
    standardisation: Standardisation
    numbers: tuple[NumberColumn, ...]
    dates: tuple[DateColumn, ...] = ()
    categories: tuple[CategoryColumn, ...] = ()
    dtype = np.float32

    @classmethod
    def fit(cls, raw: RawData, rows: Rows, encoding: Encoding) -> Self:
        """Measure the training split, column by column. Raises ``DataError`` for a value that is not finite."""
        columns = columns_of(raw.info)
        numbers = of_type(columns, NUMBERS)
        _require_numbers(raw, rows, numbers)
        dates, categories = of_type(columns, PARTS["dates"]), of_type(columns, PARTS["codes"])
        return cls(
            encoding,
            Standardisation.fit(_part(raw, "numbers"), rows),
            tuple(NumberColumn(column.name, column.missing > 0) for column in numbers),
            fit_dates(dates, raw.parts["dates"], rows) if dates else (),
            fit_categories(categories, raw.parts["codes"], rows, encoding) if categories else (),
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(
            values["encoding"],
            Standardisation.from_dict(values),
            tuple(NumberColumn(**column) for column in values["numbers"]),
            tuple(DateColumn.from_dict(column) for column in values["dates"]),
            tuple(CategoryColumn.from_dict(column) for column in values["categories"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact."""
        return {
            **self.standardisation.as_dict(),
            "encoding": self.encoding,
            "numbers": [{"name": column.name, "indicator": column.indicator} for column in self.numbers],
            "dates": [column.as_dict() for column in self.dates],
            "categories": [column.as_dict() for column in self.categories],
        }

    def reading(self, raw: RawData) -> ReadInputs:
        """Match the columns of a data set by their names, and their categories by theirs."""
        columns = columns_of(raw.info)
        lookups = self._lookups(columns)
        places = {
            name: _places(raw.info, of_type(columns, PARTS[name]), wanted)
            for name, wanted in self._wanted().items()
        }
        parts = {name: np.asarray(raw.parts[name]) for name in places}

        def read(rows: Rows) -> Inputs:
            inputs = {name: _columns(take(part, rows), places[name]) for name, part in parts.items()}
            if lookups:
                inputs["codes"] = _positions(inputs["codes"], lookups)
            return inputs

        return read

    def encode(self, inputs: Inputs, out: Array) -> None:
        """Write numbers, indicators, dates and categories beside each other."""
        place = self._encode_numbers(inputs["numbers"], out) if self.numbers else 0
        place = self._encode_missing_dates(inputs, out, place)
        for column, dates in zip(self.dates, inputs.get("dates", np.empty((0, 0))).T, strict=True):
            column.encode(dates, missing_dates(dates), out[:, place : place + column.width])
            place += column.width
        if self.categories:
            self._encode_categories(inputs["codes"], out[:, place:])

    def _encode_numbers(self, numbers: Array, out: Array) -> int:
        """Numbers and their indicators; gives how many columns these take."""
        end, places = len(self.numbers), self._indicators
        self.standardisation.apply(numbers, out[:, :end])
        missing = np.isnan(numbers)
        if missing.any():
            np.copyto(out[:, :end], 0.0, where=missing)
        out[:, end : end + len(places)] = missing if len(places) == end else missing[:, places]
        return end + len(places)

    def _encode_missing_dates(self, inputs: Inputs, out: Array, place: int) -> int:
        for column, date in enumerate(self.dates):
            if date.indicator:
                out[:, place] = missing_dates(inputs["dates"][:, column])
                place += 1
        return place

    def _encode_categories(self, positions: Array, out: Array) -> None:
        if self.encoding == "codes":
            out[:] = positions
            return
        out[:] = 0.0
        out[np.arange(len(positions))[:, None], self._group_starts + positions] = 1.0

    @cached_property
    def _indicators(self) -> list[int]:
        """Which numbers have one."""
        return [place for place, column in enumerate(self.numbers) if column.indicator]

    @cached_property
    def _group_starts(self) -> Array:
        widths = [column.positions for column in self.categories]
        return np.cumsum([0, *widths[:-1]])

    def _wanted(self) -> dict[str, list[str]]:
        """The names of the columns of each part that has any."""
        named = {
            "numbers": [column.name for column in self.numbers],
            "dates": [column.name for column in self.dates],
            "codes": [column.name for column in self.categories],
        }
        return {part: names for part, names in named.items() if names}

    def _lookups(self, columns: Sequence[Column]) -> list[Array]:
        known = {column.name: column.categories or () for column in columns}
        return [column.lookup(known.get(column.name, ())) for column in self.categories]


def columns_of(info: DatasetInfo) -> tuple[Column, ...]:
    """The columns of a table; names are made up for one that has none."""
    return info.columns or tuple(Column(f"feature_{place}") for place in range(info.shape[0]))


def of_type(columns: Sequence[Column], types: Sequence[ColumnType]) -> list[Column]:
    """The columns of these types, in their order: those of a part of ``RawData``."""
    return [column for column in columns if column.type in types]


def _part(raw: RawData, name: str) -> Array:
    return raw.parts.get(name, np.empty((len(raw), 0), np.float32))


def _require_numbers(raw: RawData, rows: Rows, columns: Sequence[Column]) -> None:
    """Raise ``DataError`` for infinity, and for NaN where the column is described as having no missing value."""
    complete = np.array([column.missing == 0 for column in columns], dtype=bool)
    for start, chunk in chunks(_part(raw, "numbers"), rows):
        bad = ~np.isfinite(chunk) if complete.all() else np.isinf(chunk) | (np.isnan(chunk) & complete)
        if bad.any():
            place = int(np.argmax(bad.any(axis=1)))
            raise _not_finite(columns[int(np.argmax(bad[place]))].name, row_at(rows, start + place))


def _not_finite(column: str, row: int) -> DataError:
    return DataError(
        f"The column {column!r} holds NaN or infinity, first in row {row}: remove such rows or fill them with a number."
    )


def _places(info: DatasetInfo, columns: Sequence[Column], wanted: Sequence[str]) -> Array | None:
    """Where the wanted columns are among those of a part; None when they are all of them in the same order."""
    names = [column.name for column in columns]
    if names == list(wanted):
        return None
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(
            f"{info.name} has no column {missing[0]!r} of the type that was trained on; it needs {', '.join(wanted)}."
        )
    return np.array([names.index(name) for name in wanted])


def _columns(part: Array, places: Array | None) -> Array:
    return part if places is None else part[:, places]


def _positions(codes: Array, lookups: Sequence[Array]) -> Array:
    positions = np.empty(codes.shape, np.int32)
    for column, lookup in enumerate(lookups):
        np.take(lookup, codes[:, column] + 1, out=positions[:, column])
    return positions
