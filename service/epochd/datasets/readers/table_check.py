"""Whether every line of a CSV file has the same columns, before anything is made of them."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from epochd.datasets.readers.table_dialect import Dialect
from epochd.datasets.readers.table_text import blocks, wrong_encoding
from epochd.datasets.reading import Limits, Source
from epochd.errors import InvalidDatasetError

_BOM: Final = b"\xef\xbb\xbf"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_NEWLINE: Final = 10
_CARRIAGE_RETURN: Final = 13


@dataclass
class _Progress:
    """``lines`` and records (lines of data, or several in quotes) so far, the header among them."""

    lines: int = 0
    records: int = 0


def check_text(source: Source, limits: Limits, dialect: Dialect) -> int:
    """Read all of the file; gives how many rows it has.

    polars fills short rows up in silence, so they are looked for here. Without quotes in the file, separators
    are counted line by line, many lines at once.

    Raises InvalidDatasetError: ``wrong_encoding``, ``nul_byte``, ``ragged_rows``, ``bad_quotes``, ``no_rows``, and what
    ``blocks`` raises.
    """
    progress = _Progress()
    checked = _decodable(blocks(source, limits), source, dialect, progress)
    for block in checked:
        if b'"' in block:
            _count_quoted(_lines(block, checked), source, dialect, progress)
        else:
            _count_plain(block, source, dialect, progress)
    rows = progress.records - dialect.header
    if rows < 1:
        raise InvalidDatasetError(
            f"{source.name!r} has a header and no rows; add rows, or send header=false if its line is data.",
            "no_rows",
            file=source.name,
        )
    return rows


def check_start(start: bytes, source: Source) -> str:
    """Decode the start of a file, as far as it can be.

    Raises InvalidDatasetError: ``wrong_encoding`` (UTF-16), ``line_endings``.
    """
    if start.startswith(_UTF16):
        raise InvalidDatasetError(
            f"{source.name!r} is UTF-16; save it as UTF-8.", "wrong_encoding", file=source.name
        )
    if b"\r" in start and b"\n" not in start:
        raise InvalidDatasetError(
            f"The lines of {source.name!r} end with a carriage return alone; save it with line feeds.",
            "line_endings",
            file=source.name,
        )
    # What is not UTF-8 is told, with its line, when all of the file is checked.
    return start.removeprefix(_BOM).decode(errors="replace").replace("\0", "")


def _decodable(
    parts: Iterable[bytes], source: Source, dialect: Dialect, progress: _Progress
) -> Iterator[bytes]:
    for part in parts:
        _decode(part, source, dialect, progress.lines)
        yield part.removeprefix(_BOM) if progress.lines == 0 else part
        progress.lines += part.count(b"\n")


def _decode(part: bytes, source: Source, dialect: Dialect, lines: int) -> None:
    try:
        part.decode()
    except UnicodeDecodeError as error:
        around = part[max(0, error.start - 10) : error.start + 10].replace(b"\n", b" ").strip()
        line = lines + part.count(b"\n", 0, error.start) + 1
        raise wrong_encoding(source, line, around, row=line - dialect.header) from None
    if (nul := part.find(b"\0")) >= 0:
        line = lines + part.count(b"\n", 0, nul) + 1
        raise InvalidDatasetError(
            f"{source.name!r} has a NUL byte in line {line}: it is no text, or UTF-16; save it as UTF-8.",
            "nul_byte",
            file=source.name,
            row=(line - dialect.header) or None,
        )


def _count_plain(block: bytes, source: Source, dialect: Dialect, progress: _Progress) -> None:
    characters = np.frombuffer(block if block.endswith(b"\n") else block + b"\n", np.uint8)
    ends = np.flatnonzero(characters == _NEWLINE)
    separators = np.flatnonzero(characters == ord(dialect.separator))
    fields = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    lengths = np.diff(ends, prepend=-1) - 1
    lengths -= (lengths > 0) & (characters[ends - 1] == _CARRIAGE_RETURN)
    fields = fields[lengths > 0]
    wrong = np.flatnonzero(fields != len(dialect.columns))
    if wrong.size:
        raise _ragged(source, dialect, progress.records + int(wrong[0]) + 1, int(fields[wrong[0]]))
    progress.records += len(fields)


def _lines(block: bytes, more: Iterable[bytes]) -> Iterator[str]:
    yield from _split(block)
    for part in more:
        yield from _split(part)


def _split(part: bytes) -> Iterator[str]:
    lines = part.decode().split("\n")
    for line in lines[:-1]:
        yield line + "\n"
    if lines[-1]:
        yield lines[-1]


def _count_quoted(lines: Iterator[str], source: Source, dialect: Dialect, progress: _Progress) -> None:
    columns = len(dialect.columns)
    try:
        for record in csv.reader(lines, delimiter=dialect.separator, strict=True):
            if record:
                progress.records += 1
                if len(record) != columns:
                    raise _ragged(source, dialect, progress.records, len(record))
    except csv.Error as error:
        row = progress.records + 1 - dialect.header
        raise bad_quotes(source, str(error), row) from error


def bad_quotes(source: Source, why: str, row: int | None = None) -> InvalidDatasetError:
    """Say that quotes open or close where they must not."""
    where = f"row {row} of {source.name!r}" if row is not None else repr(source.name)
    return InvalidDatasetError(
        f"The quotes in {where} do not match ({why}); a field with a quote in it is quoted, and the quote "
        'doubled: "a ""b"" c".',
        "bad_quotes",
        file=source.name,
        row=row,
    )


def _ragged(source: Source, dialect: Dialect, record: int, fields: int) -> InvalidDatasetError:
    row, columns = record - dialect.header, len(dialect.columns)
    first = "the header" if dialect.header else "row 1"
    return InvalidDatasetError(
        f"Row {row} of {source.name!r} has {fields} fields, {first} has {columns} (separated by "
        f"{dialect.separator!r}); give every row {columns}, and quote fields that hold a separator.",
        "ragged_rows",
        file=source.name,
        row=row,
    )
