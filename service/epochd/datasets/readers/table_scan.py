"""A table of any format as batches of rows, each time from the first row on, in little memory."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from epochd.datasets.readers.table_check import bad_quotes
from epochd.datasets.readers.table_dialect import MISSING, Dialect
from epochd.datasets.readers.table_text import damaged
from epochd.datasets.reading import Source

MOST_ROWS: Final = 65_536
_CELLS: Final = 2**21

Batches = Iterator[pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Table:
    """A file whose columns are known.

    ``schema`` has their types, in their order; ``typed`` is false where they are all text that has yet to tell what
    it is (CSV). ``scan`` reads the columns that it is given, from the first row on.
    """

    source: Source
    format: str
    schema: Mapping[str, pl.DataType]
    typed: bool
    scan: Callable[[list[str]], Batches]
    separator: str = ""


def batch_rows(columns: int) -> int:
    """How many rows a batch has, so that wide tables take no more memory than narrow ones."""
    return max(256, min(MOST_ROWS, _CELLS // max(1, columns)))


def csv_table(source: Source, dialect: Dialect) -> Table:
    """A CSV file that was checked: text without the spaces around it, null where a value is missing."""
    names = list(dialect.columns)
    frame = pl.scan_csv(
        source.path,
        has_header=False,
        skip_lines=dialect.skip,
        schema=dict.fromkeys(names, pl.String()),
        separator=dialect.separator,
        empty_string_is_null=False,
        glob=False,
    )

    def scan(columns: list[str]) -> Batches:
        try:
            for batch in streamed(frame, batch_rows(len(names))):
                yield _cleaned(_without_blank(batch), columns)
        except pl.exceptions.PolarsError as error:
            raise bad_quotes(source, str(error).splitlines()[0]) from error

    schema = dict.fromkeys(names, pl.String())
    return Table(source, "csv", schema, typed=False, scan=scan, separator=dialect.separator)


def _without_blank(batch: pl.DataFrame) -> pl.DataFrame:
    """Leave out blank lines, of which polars makes rows; a row of a single column may just be missing."""
    blank = batch.to_series(0) == ""
    for column in batch.iter_columns():
        if not blank.any():
            break
        blank &= column == ""
    return batch.filter(~blank) if batch.width > 1 and blank.any() else batch


def _cleaned(batch: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    # Column by column: a query of thousands of expressions takes minutes and gigabytes.
    text = (batch[name].str.strip_chars() for name in columns)
    missing = pl.Series(MISSING)
    return pl.DataFrame([values.set(values.is_in(missing.implode()), None) for values in text])


def lazy_table(source: Source, name: str, frame: pl.LazyFrame) -> Table:
    """A table of a format that polars reads as a stream itself."""
    try:
        schema = dict(frame.collect_schema())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(source, _first_line(error)) from error

    def scan(columns: list[str]) -> Batches:
        try:
            yield from streamed(frame.select(columns), batch_rows(len(columns)))
        except pl.exceptions.PolarsError as error:
            raise damaged(source, _first_line(error)) from error

    return Table(source, name, schema, typed=True, scan=scan)


def streamed(frame: pl.LazyFrame, rows: int) -> Batches:
    """Read a query batch by batch, in order, never all of it."""
    yield from frame.collect_batches(chunk_size=rows, maintain_order=True, lazy=True, engine="streaming")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
