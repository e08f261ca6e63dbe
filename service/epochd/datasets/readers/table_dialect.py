"""How a CSV file is written: its separator, and whether its first line are the names of its columns."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from epochd.datasets.reading import Source
from epochd.errors import InvalidDatasetError

SEPARATORS: Final = (",", ";", "\t", "|", " ")
MISSING: Final = (
    "", "NA", "N/A", "n/a", "na", "NaN", "nan", "NAN", "-nan", "null", "NULL", "Null", "None", "#N/A", "?",
)  # fmt: skip
"""What stands for a value that is missing, spaces around it left out."""
_SAMPLE_ROWS: Final = 200
_DATE: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?")
_BOOLEANS: Final = frozenset({"true", "false"})


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to read a file.

    ``columns`` are the names, made up where there is no header; ``inferred`` tells that nobody said so. ``skip`` lines
    come before the first row: blank ones and the header.
    """

    separator: str
    header: bool
    skip: int
    columns: tuple[str, ...]
    inferred: bool


def find_dialect(text: str, source: Source, *, header: bool | None) -> Dialect:
    """Tell the dialect from the first lines. ``header`` is what the owner says, None to infer it.

    Raises InvalidDatasetError: ``empty_file``, ``duplicate_columns``.
    """
    read = {separator: _rows(text, separator) for separator in SEPARATORS}
    rows = {separator: [row for _, row in numbered] for separator, numbered in read.items()}
    if not rows[","]:
        raise InvalidDatasetError(f"{source.name!r} has no text in it.", "empty_file", file=source.name)
    separator = max(SEPARATORS, key=lambda each: _agreement(rows[each]))
    first, *body = rows[separator]
    has_header = _has_header(first, body) if header is None else header
    names = tuple(cell.strip() if has_header else "" for cell in first)
    named = tuple(name or f"column_{number}" for number, name in enumerate(names, 1))
    _check_unique(named, source)
    skip = read[separator][min(len(body), int(has_header))][0]
    return Dialect(separator, has_header, skip, named, header is None)


def _rows(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Read the first rows, each with the number of lines before it; blank ones are left out."""
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader((line + "\n" for line in text.split("\n")), delimiter=separator)
    before = 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((before, row))
            before = reader.line_num
            if len(rows) == _SAMPLE_ROWS:
                break
    except csv.Error:
        pass  # a quote that never ends: what was read until then tells the dialect
    return rows


def _agreement(rows: Sequence[Sequence[str]]) -> tuple[bool, float, int]:
    """How well a separator explains the lines: more than one column, as many in most lines, and many of them."""
    counts = Counter(len(row) for row in rows)
    columns, times = counts.most_common(1)[0] if counts else (1, 1)
    return (columns > 1, times / max(1, len(rows)), columns)


def _has_header(first: Sequence[str], body: Sequence[Sequence[str]]) -> bool:
    columns = list(zip(*[row for row in body if len(row) == len(first)], strict=True))
    if not columns:
        return not any(_is_number(cell) for cell in first)
    typed = [(cell, test) for cell, values in zip(first, columns, strict=True) if (test := _type_of(values))]
    if any(test(cell) for cell, test in typed):
        return False
    if any(cell.strip() not in MISSING for cell, _ in typed):
        return True
    # Nothing above a number but a gap, as where the names of rows stand, or in a first row with a missing value.
    named = [cell for cell in first if cell.strip()]
    return (
        len(set(named)) == len(named)
        and (bool(typed) or len(named) == len(first))
        and not any(cell in values for cell, values in zip(first, columns, strict=True) if cell.strip())
    )


def _type_of(values: Iterable[str]) -> Callable[[str], bool] | None:
    """What all values are that are there and no name of a column would be; None if there is no such thing."""
    present = [value for value in values if value.strip() not in MISSING]
    tests = (_is_number, _is_date, _is_boolean)
    return next((test for test in tests if present and all(test(value) for value in present)), None)


def _is_date(value: str) -> bool:
    return _DATE.fullmatch(value.strip()) is not None


def _is_boolean(value: str) -> bool:
    return value.strip().lower() in _BOOLEANS


def _is_number(value: str) -> bool:
    try:
        float(value.strip().replace(",", "."))
    except ValueError:
        return False
    return True


def _check_unique(names: Sequence[str], source: Source) -> None:
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        places = [str(place) for place, each in enumerate(names, 1) if each == name]
        raise InvalidDatasetError(
            f"{times} columns of {source.name!r} are called {name!r} (columns {', '.join(places)}); give each its own "
            f"name, or send header=false if the first line is data.",
            "duplicate_columns",
            file=source.name,
            column=name,
        )
