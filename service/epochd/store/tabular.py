"""Rows as text: CSV and NDJSON, streamed; numbers are spelt as in JSON, and null is nothing in CSV."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:  # polars takes longer to import than an API should take to start
    from polars import Expr


def csv_of_columns(names: Sequence[str], parts: Iterable[Mapping[str, str]]) -> Iterator[bytes]:
    """Write columns, each the text of JSON numbers and nulls separated by commas, as CSV."""
    line = _joined(names)
    filled = ({name: part[name].replace("null", "") for name in names} for part in parts)
    return _headed(names, (_lines(cells, line, "\r\n") for cells in filled if cells[names[0]]))


def ndjson_of_columns(names: Sequence[str], parts: Iterable[Mapping[str, str]]) -> Iterator[bytes]:
    """Write the same as NDJSON."""
    line = _object(names)
    filled = ({name: part[name] for name in names} for part in parts)
    return (_lines(cells, line, "\n") for cells in filled if cells[names[0]])


def _lines(cells: Mapping[str, str], line: "Expr", end: str) -> bytes:
    # Split and joined by polars, which needs no Python object a cell and leaves the interpreter to others meanwhile.
    import polars as pl  # noqa: PLC0415 - see above

    frame = pl.DataFrame([pl.Series(name, [text]).str.split(",").explode() for name, text in cells.items()])
    text: str = frame.select(line.str.join(end)).item()
    return (text + end).encode()


def _joined(names: Sequence[str]) -> "Expr":
    import polars as pl  # noqa: PLC0415 - see above

    return pl.concat_str(names, separator=",")


def _object(names: Sequence[str]) -> "Expr":
    import polars as pl  # noqa: PLC0415 - see above

    keys = [("," if place else "{") + f'"{name}":' for place, name in enumerate(names)]
    pairs = [one for key, name in zip(keys, names, strict=True) for one in (pl.lit(key), pl.col(name))]
    return pl.concat_str(*pairs, pl.lit("}"))


def csv_of_rows(names: Sequence[str], parts: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[bytes]:
    """Write rows of numbers, booleans and None, of which any may be missing, as CSV."""
    return _headed(names, (b"".join(_cells(names, row) for row in part) for part in parts))


def _cells(names: Sequence[str], row: Mapping[str, Any]) -> bytes:
    return orjson.dumps([row.get(name) for name in names])[1:-1].replace(b"null", b"") + b"\r\n"


def ndjson_of_rows(names: Sequence[str], parts: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[bytes]:
    """Write the same as NDJSON; what is missing is null."""
    return (b"".join(_object_of(names, row) for row in part) for part in parts)


def _object_of(names: Sequence[str], row: Mapping[str, Any]) -> bytes:
    return orjson.dumps({name: row.get(name) for name in names}, option=orjson.OPT_APPEND_NEWLINE)


def _headed(names: Sequence[str], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Put the line of the names before the first chunk, not alone: what cannot be read should not have begun."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(names)
    yield text.getvalue().encode() + next(chunks, b"")
    yield from chunks
