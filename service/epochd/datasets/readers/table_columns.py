"""What a column holds, seen once from its first row to its last, in memory that does not grow with it."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

NUMBER: Final = "number"
COMMA: Final = "number with a decimal comma"
BOOLEAN: Final = "boolean"
CATEGORY: Final = "category"
DATES: Final = (
    "%Y-%m-%d",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d/%m/%Y",
    "%m/%d/%Y",
)
"""Ways of writing a date that are tried, the first that fits all values being taken."""
ISO_DATES: Final = 7
"""So many of them are ISO 8601."""
NUMBERS: Final = (NUMBER, COMMA)
MAX_CATEGORIES: Final = 10_000
MAX_CATEGORY_LENGTH: Final = 256
"""In bytes: what is longer is a text, not the name of something."""
MAX_NUMBER: Final = float(np.finfo(np.float32).max)
_TRIED_FIRST: Final = 100


def parse(values: pl.Series, form: str) -> pl.Series:
    """Read values the way that ``form`` says, null where one does not fit: Float64, Datetime, Boolean or String."""
    if values.dtype != pl.String:
        return _typed(values)
    if form == CATEGORY:
        return values
    if form == BOOLEAN:
        text = values.str.to_lowercase()
        return text.replace_strict({"true": True, "false": False}, default=None, return_dtype=pl.Boolean)
    if form in NUMBERS:
        text = values.str.replace(",", ".", literal=True) if form == COMMA else values
        return text.cast(pl.Float64, strict=False).fill_nan(None)
    zone = "UTC" if form.endswith("z") else None
    return values.str.to_datetime(form, strict=False, time_unit="us", time_zone=zone)


def _typed(values: pl.Series) -> pl.Series:
    if values.dtype.is_numeric():
        return values.cast(pl.Float64).fill_nan(None)
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        # A time with a zone is an instant: its physical value is in UTC already.
        return values.cast(pl.Datetime("us", getattr(values.dtype, "time_zone", None)))
    if values.dtype in (pl.Boolean, pl.Null):
        return values
    return values.cast(pl.String)


def forms_of(dtype: pl.DataType, *, typed: bool, separator: str) -> list[str]:
    """How a column of this type may be read, the first that fits all its values being taken; none: not at all."""
    if dtype == pl.String and not typed:
        comma = [COMMA] if separator != "," else []
        return [NUMBER, *comma, BOOLEAN, *DATES, CATEGORY]
    if dtype.is_numeric():
        return [NUMBER]
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return [DATES[0 if dtype == pl.Date else 1]]
    if dtype == pl.Boolean:
        return [BOOLEAN]
    if dtype == pl.String:
        # Text in a typed file is meant as text, but for dates, which some programs write so.
        return [*DATES[:ISO_DATES], CATEGORY]
    text = dtype == pl.Null or isinstance(dtype, pl.Categorical | pl.Enum)
    return [CATEGORY] if text else []


@dataclass
class ColumnScan:
    """What is known of a column after ``rows`` rows.

    ``forms`` are the ways to read it that fit every value so far, the one to take first. ``counts`` has the values and
    how often each comes (``value``, ``count``), None once there are too many or it was not asked for.
    ``misfit`` is the first value, with its row, that is no number; ``infinite`` the row of the first that is infinite
    or too large for float32. ``mixed``: numbers came before the misfit. ``sequential``: whole numbers, each one more
    than the one before.
    """

    name: str
    forms: list[str]
    counting: bool
    rows: int = 0
    missing: int = 0
    first_missing: int | None = None
    misfit: tuple[int, str] | None = None
    mixed: bool = False
    infinite: tuple[int, float] | None = None
    counts: pl.DataFrame | None = None
    many: bool = False
    long: bool = False
    whole: bool = True
    sequential: bool = True
    minimum: float = float("inf")
    maximum: float = float("-inf")
    _last: float | None = field(default=None, repr=False)

    @property
    def form(self) -> str:
        """How the column is read."""
        return self.forms[0]

    @property
    def is_number(self) -> bool:
        """Whether all of it are numbers."""
        return self.form in NUMBERS

    @property
    def is_date(self) -> bool:
        """Whether all of it are dates."""
        return self.form in DATES

    @property
    def empty(self) -> bool:
        """Whether no row has a value."""
        return self.missing == self.rows

    @property
    def constant(self) -> bool:
        """Whether every row has the same value."""
        if self.missing or not self.rows:
            return False
        return self.minimum == self.maximum or (self.counts is not None and len(self.counts) == 1)

    def add(self, values: pl.Series) -> None:
        """Take the next rows in."""
        read = self._narrow(values)
        missing = read.is_null()
        if self.first_missing is None and missing.any():
            self.first_missing = self.rows + int(missing.arg_true()[0]) + 1
        self.missing += int(missing.sum())
        if self.is_number:
            self._add_numbers(read)
        elif self.is_date:
            self._widen(read.to_physical())
        if self.counting and not (self.many or self.long):
            self._count(values.cast(pl.String) if values.dtype != pl.String else values)
        self.rows += len(values)

    def _narrow(self, values: pl.Series) -> pl.Series:
        """Strike out the forms that these values do not fit; gives the values as the first that is left reads them."""
        sample = values.drop_nulls().head(_TRIED_FIRST)
        read = parse(values, self.form)
        while len(self.forms) > 1:
            self.forms = [self.forms[0], *(form for form in self.forms[1:] if _fits(sample, form))]
            misfits = read.is_null() & values.is_not_null()
            if not misfits.any():
                break
            if self.form == NUMBER and self.misfit is None:
                index = int(misfits.arg_true()[0])
                self.misfit = (self.rows + index + 1, values[index])
                self.mixed = self.missing < self.rows or read[:index].null_count() < index
            self.forms = self.forms[1:]
            read = parse(values, self.form)
        return read

    def _add_numbers(self, read: pl.Series) -> None:
        outside = read.abs() > MAX_NUMBER
        if self.infinite is None and outside.any():
            index = int(outside.arg_true()[0])
            self.infinite = (self.rows + index + 1, read[index])
        self.whole = self.whole and bool((read.drop_nulls() % 1 == 0).all())
        self._widen(read)
        self.sequential = self.sequential and self._goes_on(read)

    def _widen(self, read: pl.Series) -> None:
        lowest, highest = read.min(), read.max()
        if isinstance(lowest, int | float) and isinstance(highest, int | float):
            self.minimum, self.maximum = min(self.minimum, lowest), max(self.maximum, highest)

    def _goes_on(self, read: pl.Series) -> bool:
        if not len(read):
            return True
        first, self._last, last = read[0], read[-1], self._last
        joined = last is None or (first is not None and first == last + 1)
        return joined and not read.has_nulls() and bool((read.diff().drop_nulls() == 1).all())

    def _count(self, values: pl.Series) -> None:
        seen = values.drop_nulls().rename("value").value_counts(name="count").cast({"count": pl.UInt64})
        if (seen["value"].str.len_bytes().max() or 0) > MAX_CATEGORY_LENGTH:  # type: ignore[operator]
            self.long, self.counts = True, None
            return
        both = seen if self.counts is None else pl.concat([self.counts, seen])
        self.counts = both.group_by("value").agg(pl.col("count").sum()).sort("value")
        if len(self.counts) > MAX_CATEGORIES:
            self.many, self.counts = True, None


def _fits(sample: pl.Series, form: str) -> bool:
    return form == CATEGORY or not parse(sample, form).has_nulls()
