"""Applying what was fitted to samples that a program has."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from tests.datasets.mixed_table import micros, people

from epochd.datasets import builtin
from epochd.datasets.encoding import encoded
from epochd.datasets.preprocessing import Preprocessing
from epochd.datasets.preprocessing.records import microseconds
from epochd.errors import DataError

BLANK = dict.fromkeys(("age", "colour", "member", "since", "born", "size"))


def fitted(encoding="one_hot"):
    raw = people()
    return Preprocessing.fit(raw, np.arange(5), encoded(raw.info, encoding))


@pytest.mark.parametrize("encoding", ["one_hot", "codes"])
def test_records_are_seen_as_the_data_set_was(encoding):
    records = [
        {
            "age": 40,
            "colour": "green",
            "member": True,
            "since": "2024-07-01T12:30",
            "born": "1980-02-29",
            "size": "L",
        },
        {"age": 60.0, "colour": None, "member": False, "since": None, "born": date(1970, 1, 8), "size": "L"},
    ]
    preprocessing = fitted(encoding)
    assert np.array_equal(
        preprocessing.apply_records(records), preprocessing.apply(people(), np.array([1, 3]))
    )


def test_everything_may_be_missing_or_unknown():
    x = fitted().apply_records([BLANK, {**BLANK, "colour": "purple"}])
    assert x[0].tolist() == x[1].tolist()
    assert x[0, 2:4].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"age": "old"}, "Row 0, column 'age': 'old' cannot be read"),
        ({"born": "yesterday"}, "Row 0, column 'born'"),
        ({"born": 7}, "Row 0, column 'born'"),
        ({"age": float("inf")}, "infinity, first in row 0"),
    ],
)
def test_what_cannot_be_read_is_named(value, said):
    with pytest.raises(DataError, match=said):
        fitted().apply_records([{**BLANK, **value}])


def test_a_column_that_is_left_out_is_named():
    with pytest.raises(DataError, match="Row 0 has no column 'age'; send null"):
        fitted().apply_records([{"colour": "red"}])


def test_a_moment_is_the_same_in_every_time_zone():
    there = timezone(timedelta(hours=5))
    assert microseconds(datetime(2024, 1, 1, 5, tzinfo=there)) == micros("2024-01-01")
    assert (
        microseconds("2024-01-01T00:00Z")
        == microseconds(datetime(2024, 1, 1, tzinfo=UTC))
        == micros("2024-01-01")
    )
    assert microseconds(date(1969, 12, 31)) == -86_400_000_000


def test_images_are_arrays():
    raw = builtin.load("digits").raw
    preprocessing = Preprocessing.fit(raw, np.arange(100), encoded(raw.info, "one_hot"))
    images = raw.parts["x"][:3]
    assert np.array_equal(preprocessing.apply_records(list(images)), preprocessing.apply(raw, np.arange(3)))
