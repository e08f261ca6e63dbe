"""Which columns of a table are worth predicting from, and what the owner should know of the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from epochd.datasets.info import Column
from epochd.datasets.readers.table_columns import (
    BOOLEAN,
    DATES,
    MAX_CATEGORIES,
    MAX_CATEGORY_LENGTH,
    ColumnScan,
)
from epochd.datasets.readers.table_target import check_finite
from epochd.datasets.reading import Source
from epochd.errors import InvalidDatasetError

EXACT_IN_FLOAT32: Final = 2**24
_ID_ROWS: Final = 20
"""Fewer rows may well be all different by chance."""
_DAYS: Final = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")

Note = dict[str, str]


@dataclass(frozen=True, slots=True)
class Feature:
    """A column that is kept, and how its values are read."""

    column: Column
    form: str


def settle_features(
    scans: Sequence[ColumnScan], source: Source, *, given: bool
) -> tuple[tuple[Feature, ...], list[Note]]:
    """Settle the features; gives them in the file's order, and notes.

    Columns that cannot help are left out, unless the owner named them (``given``).

    Raises InvalidDatasetError: ``infinite_value``, ``too_many_categories``, ``no_features``.
    """
    kept, notes = [], []
    for scan in scans:
        check_finite(scan, source)
        useless = next(_useless(scan, given=given), None)
        notes += [useless] if useless else list(_remarks(scan))
        if useless is None:
            kept.append(_feature(scan, source))
    if not kept:
        reasons = " ".join(note["message"] for note in notes[:3])
        message = f"{source.name!r} has no column left to predict from. {reasons}"
        raise InvalidDatasetError(message, "no_features", file=source.name)
    return tuple(kept), notes


def _useless(scan: ColumnScan, *, given: bool) -> Iterator[Note]:
    if scan.empty:
        yield _note("empty_column", f"The column {scan.name!r} has no value in any row and was left out.")
    if given:
        return
    named = "name it in features to keep it"
    if scan.constant:
        yield _note(
            "constant_column", f"The column {scan.name!r} is the same in every row: left out; {named}."
        )
    if _numbers_rows(scan) or _names_rows(scan):
        yield _note(
            "id_column", f"The column {scan.name!r} only numbers or names the rows: left out; {named}."
        )
    if _is_text(scan) and scan.long:
        message = (
            f"The column {scan.name!r} has values longer than {MAX_CATEGORY_LENGTH} bytes: it is text and no category, "
            "and was left out; send texts as JSON lines of text and label."
        )
        yield _note("text_column", message)
    if _is_text(scan) and scan.many:
        message = (
            f"The column {scan.name!r} has more than {MAX_CATEGORIES} different values and was left out."
        )
        yield _note("too_many_categories", message)


def _is_text(scan: ColumnScan) -> bool:
    return not (scan.is_number or scan.is_date or scan.form == BOOLEAN)


def _numbers_rows(scan: ColumnScan) -> bool:
    return scan.is_number and scan.sequential and scan.rows >= _ID_ROWS


def _names_rows(scan: ColumnScan) -> bool:
    everywhere = scan.counts is not None and len(scan.counts) == scan.rows
    return _is_text(scan) and everywhere and scan.rows >= _ID_ROWS


def _remarks(scan: ColumnScan) -> Iterator[Note]:
    if _is_text(scan) and scan.misfit is not None and scan.mixed:
        row, value = scan.misfit
        message = (
            f"The column {scan.name!r} has numbers up to row {row}, where it has {value!r}: all its values are taken "
            "for categories. Correct it if they are meant to be numbers."
        )
        yield _note("mixed_column", message)
    if scan.form in DATES and len(days := [form for form in scan.forms if form in _DAYS]) > 1:
        message = (
            f"The dates in {scan.name!r} are read as {days[0]}, but could be {days[1]}; write 2026-01-31."
        )
        yield _note("ambiguous_dates", message)
    if scan.is_number and scan.whole and max(scan.maximum, -scan.minimum) > EXACT_IN_FLOAT32:
        message = f"The column {scan.name!r} has whole numbers above {EXACT_IN_FLOAT32}, rounded to 24 bits."
        yield _note("rounded_numbers", message)
    if scan.constant:
        yield _note("constant_column", f"The column {scan.name!r} is the same in every row.")


def _feature(scan: ColumnScan, source: Source) -> Feature:
    if scan.is_number:
        return Feature(Column(scan.name, "number", scan.missing), scan.form)
    if scan.form == BOOLEAN:
        return Feature(Column(scan.name, "boolean", scan.missing), scan.form)
    if scan.is_date:
        return Feature(Column(scan.name, "date", scan.missing, has_time=scan.form not in _DAYS), scan.form)
    if scan.counts is None:
        raise InvalidDatasetError(
            f"The column {scan.name!r} of {source.name!r} has more than {MAX_CATEGORIES} different values, or such of "
            f"more than {MAX_CATEGORY_LENGTH} bytes; group them, or leave the column out of the features.",
            "too_many_categories",
            param="features",
            file=source.name,
            column=scan.name,
        )
    categories = tuple(scan.counts["value"].to_list())
    return Feature(Column(scan.name, "category", scan.missing, categories), scan.form)


def _note(code: str, message: str) -> Note:
    return {"code": code, "message": message}
