"""A mixed table with everything that can be missing, made by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from epochd.datasets.info import Column, DatasetInfo
from epochd.datasets.raw import MISSING_CODE, MISSING_DATE, RawData

NAN = np.nan
COLOURS = ("blue", "green", "red")
COLUMNS = (
    Column("age", "number", missing=1),
    Column("colour", "category", missing=1, categories=COLOURS),
    Column("member", "boolean"),
    Column("since", "date", missing=1, has_time=True),
    Column("born", "date"),
    Column("size", "category", categories=("L", "S")),
)
INFO = DatasetInfo("people", "classification", 6, (6,), ("no", "yes"), 0, "", "table", COLUMNS)


def micros(text):
    """Microseconds since 1970 of an ISO date in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def people(info=INFO):
    """Six samples; the last one has colour 2, which no other has."""
    numbers = np.array([[20, 0], [40, 1], [NAN, 1], [60, 0], [80, 1], [50, 1]], np.float32)
    since = [
        "2024-01-01T00:00",
        "2024-07-01T12:30",
        "1969-12-31T23:59",
        None,
        "2024-01-08T06:00",
        "2024-03-01",
    ]
    born = ["1970-01-01", "1980-02-29", "1960-06-15", "1970-01-08", "2000-12-31", "1999-01-01"]
    dates = np.array(
        [
            [MISSING_DATE if one is None else micros(one), micros(two)]
            for one, two in zip(since, born, strict=True)
        ]
    )
    codes = np.array([[0, 0], [1, 0], [1, 1], [MISSING_CODE, 0], [0, 1], [2, 0]], np.int32)
    y = np.array([0, 1, 0, 1, 0, 1])
    return RawData(info, {"numbers": numbers, "dates": dates, "codes": codes}, y, "sha256:people")


def reordered():
    """The same samples, but for the order of columns, categories and classes, and with a column more."""
    info = replace(
        INFO,
        name="reordered",
        columns=(
            COLUMNS[5],
            Column("more", "number"),
            replace(COLUMNS[1], categories=("red", "purple", "blue", "green")),
            COLUMNS[4],
            COLUMNS[2],
            COLUMNS[3],
            COLUMNS[0],
        ),
        shape=(7,),
        classes=("yes", "no"),
    )
    raw = people()
    colours = np.array([2, 3, 0, MISSING_CODE])[raw.parts["codes"][:, 0]]
    parts = {
        "numbers": np.column_stack([np.full(6, 7.0), raw.parts["numbers"][:, ::-1]]).astype(np.float32),
        "dates": raw.parts["dates"][:, ::-1],
        "codes": np.column_stack([raw.parts["codes"][:, 1], colours]).astype(np.int32),
    }
    return RawData(info, parts, 1 - raw.y, "sha256:reordered")
