"""Mixed tables: what becomes of each column, and of what is missing or was never seen."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.datasets.mixed_table import COLUMNS, INFO, micros, people, reordered

from epochd.datasets.encoding import MAX_ONE_HOT, encoded
from epochd.datasets.info import Column
from epochd.datasets.preprocessing import CHUNK_VALUES, Preprocessing
from epochd.datasets.preprocessing.dates import DAY, YEAR, phases
from epochd.datasets.preprocessing.rows import ALL
from epochd.datasets.raw import MISSING_CODE, MISSING_DATE, RawData
from epochd.errors import DataError

TRAIN = np.arange(5)
"""All but the last, whose colour is so never seen."""


def fit(raw, encoding="one_hot", rows=TRAIN):
    return Preprocessing.fit(raw, rows, encoded(raw.info, encoding))


def table_of(column, part, values, samples):
    info = replace(INFO, samples=samples, shape=(1,), columns=(column,))
    return RawData(info, {part: values.reshape(samples, 1)}, np.zeros(samples, np.int64), "sha256:")


def test_columns_stand_where_they_are_documented():
    x = fit(people()).apply(people())
    assert x.shape == (6, 23)
    known = np.array([20, 40, 60, 80])
    assert x[:, 0] == pytest.approx((np.array([20, 40, 50, 60, 80, 50]) - 50) / known.std())
    assert x[:, 2].tolist() == [0, 0, 1, 0, 0, 0]  # no age
    assert x[:, 3].tolist() == [0, 0, 0, 1, 0, 0]  # no since
    assert x[:, 16:20].tolist() == [  # other, blue, green: red takes a place, though training has none
        [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0],
    ]  # fmt: skip
    assert x[:, 20:].tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_codes_are_the_last_columns():
    x = fit(people(), "codes").apply(people())
    assert x.shape == (6, 18)
    assert x[:, 16:].tolist() == [[1, 1], [2, 1], [2, 2], [0, 1], [1, 2], [0, 1]]
    assert np.array_equal(x[:, :16], fit(people()).apply(people())[:, :16])


def test_a_date_is_a_time_and_its_place_in_the_week_and_the_day():
    x = fit(people()).apply(people())
    since, born = x[:, 4:11], x[:, 11:16]
    known = people().parts["dates"][[0, 1, 2, 4], 0].astype(float)
    assert since[[0, 1, 2, 4], 0] == pytest.approx((known - known.mean()) / known.std(), abs=1e-6)
    assert since[3].tolist() == [0] * 7  # missing: the mean, and no phase
    assert since[0, 3:5] == pytest.approx(since[4, 3:5])  # both are Mondays
    assert since[1, 5:7] == pytest.approx([np.sin(2 * np.pi * 750 / 1440), np.cos(2 * np.pi * 750 / 1440)])
    assert since[2, 5:7] == pytest.approx(
        [-np.sin(2 * np.pi / 1440), np.cos(2 * np.pi / 1440)]
    )  # before 1970
    assert np.allclose(np.hypot(born[:, 1], born[:, 2]), 1)
    # One year is one turn: the 1st of January lies where it does in any other year, to a day or two.
    assert born[0, 1:3] == pytest.approx(born[5, 1:3], abs=0.04)


def test_every_moment_has_a_phase():
    steps = phases(YEAR, DAY)
    assert len(steps) == 366
    assert (YEAR - 1) // DAY == 365
    column = Column("day", "date", has_time=True)
    extremes = np.array([micros("0001-01-01"), micros("9999-12-31T23:59:59"), -1, 0, 1], np.int64)
    raw = table_of(column, "dates", extremes, 5)
    x = fit(raw).apply(raw)
    assert np.isfinite(x).all()
    assert np.abs(x[:, 1:]).max() <= 1


def test_what_is_constant_or_missing_altogether_becomes_zero():
    same = table_of(Column("day", "date"), "dates", np.full(5, micros("2020-02-02")), 5)
    assert fit(same).apply(same)[:, 0].tolist() == [0] * 5
    column = Column("day", "date", missing=5)
    never = table_of(column, "dates", np.full(5, MISSING_DATE), 5)
    assert fit(never).apply(never).tolist() == [[1, 0, 0, 0, 0, 0]] * 5
    empty = table_of(Column("age", missing=5), "numbers", np.full(5, np.nan, np.float32), 5)
    assert fit(empty).apply(empty).tolist() == [[0, 1]] * 5
    nothing = table_of(Column("c", "category", 5, ("a",)), "codes", np.full(5, MISSING_CODE, np.int32), 5)
    assert fit(nothing).apply(nothing).tolist() == [[1, 0]] * 5


def test_only_the_training_split_counts():
    raw = people()
    changed = people()
    changed.parts["numbers"][5], changed.parts["dates"][5], changed.parts["codes"][5] = 1e9, 0, 1
    assert fit(raw).as_dict() == fit(changed).as_dict()
    assert fit(raw).as_dict() != fit(changed, rows=ALL).as_dict()


def test_a_missing_number_in_a_column_that_had_none_is_the_mean_too():
    later = people()
    later.parts["numbers"][0, 1] = np.nan
    x = fit(people()).apply(later)
    assert x[0, 1] == 0
    with pytest.raises(DataError, match="'member' holds NaN or infinity, first in row 0"):
        fit(later)


def test_infinity_is_refused_where_values_may_be_missing():
    raw = people()
    raw.parts["numbers"][4, 0] = -np.inf
    with pytest.raises(DataError, match="'age' holds NaN or infinity, first in row 4"):
        fit(raw)
    with pytest.raises(DataError, match="row 4"):
        fit(people()).apply(raw)


def test_the_most_frequent_values_have_a_place_of_their_own():
    codes = np.concatenate([np.arange(200), np.arange(100, 163), np.arange(190, 200)]).astype(np.int32)
    column = Column("c", "category", categories=tuple(f"{place:03}" for place in range(200)))
    raw = table_of(column, "codes", codes, len(codes))
    preprocessing = fit(raw, rows=ALL)
    kept = preprocessing.as_dict()["categories"][0]
    assert kept["positions"] == MAX_ONE_HOT + 1
    # 73 occur twice: the first 64 of them are kept, in their own order.
    assert kept["values"] == [f"{place:03}" for place in (*range(100, 163), 190)]
    x = preprocessing.apply(raw)
    assert x.sum(axis=1).tolist() == [1] * len(codes)
    assert x[[0, 99, 199], 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("encoding", ["one_hot", "codes"])
def test_other_data_is_matched_by_names(encoding):
    preprocessing = fit(people(), encoding)
    reading = preprocessing.reading(reordered())
    assert np.array_equal(reading.apply(), preprocessing.apply(people()))
    assert np.array_equal(reading.targets(), people().y)
    rows = np.array([4, 0])
    assert np.array_equal(reading.apply(rows), preprocessing.apply(people(), rows))


def test_a_column_that_is_not_there_is_named():
    lacking = replace(INFO, name="new", columns=(replace(COLUMNS[0], name="years"), *COLUMNS[1:]))
    with pytest.raises(DataError, match="new has no column 'age'"):
        fit(people()).apply(people(lacking))


@pytest.mark.parametrize("encoding", ["one_hot", "codes"])
def test_what_was_stored_applies_the_same_bits(encoding):
    preprocessing = fit(people(), encoding)
    stored = json.loads(json.dumps(preprocessing.as_dict(), allow_nan=False))
    again = Preprocessing.from_dict(stored)
    assert again.as_dict() == stored
    assert np.array_equal(again.apply(people()), preprocessing.apply(people()))


def test_inputs_are_what_an_exported_model_takes():
    inputs = fit(people()).inputs(reordered(), np.array([0, 5]))
    assert {name: part.dtype for name, part in inputs.items()} == {
        "numbers": np.float32, "dates": np.int64, "codes": np.int32,
    }  # fmt: skip
    assert inputs["codes"].tolist() == [[1, 1], [0, 1]]
    assert inputs["numbers"].tolist() == [[20, 0], [50, 1]]


def test_many_chunks_fit_what_one_would():
    samples = CHUNK_VALUES + 1000
    rng = np.random.default_rng(0)
    column = Column("age", missing=1)
    ages = rng.normal(40, 3, samples).astype(np.float32)
    ages[rng.random(samples) < 0.3] = np.nan
    raw = table_of(column, "numbers", ages, samples)
    preprocessing = fit(raw, rows=np.arange(0, samples, 1))
    assert preprocessing.mean == pytest.approx([np.nanmean(ages.astype(np.float64))], rel=1e-6)
    assert preprocessing.scale == pytest.approx([np.nanstd(ages.astype(np.float64))], rel=1e-6)
    codes = rng.integers(-1, 3, samples).astype(np.int32)
    category = Column("c", "category", 1, ("a", "b", "c"))
    kept = fit(table_of(category, "codes", codes, samples), rows=ALL).as_dict()["categories"][0]
    assert kept["values"] == ["a", "b", "c"]
