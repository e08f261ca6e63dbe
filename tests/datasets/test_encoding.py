from dataclasses import replace

import pytest
from tests.datasets.mixed_table import COLUMNS, INFO

from epochd.datasets import catalogue
from epochd.datasets.encoding import MAX_CODES, MAX_ONE_HOT, Encoded, encoded
from epochd.datasets.info import Column, DatasetInfo

TEXT = DatasetInfo("reviews", "classification", 9, (), ("bad", "good"), 0, "", "text")


def categories(count):
    column = Column("c", "category", categories=tuple(f"{place:05}" for place in range(count)))
    return DatasetInfo("many", "regression", 9, (1,), None, 1, "", "table", (column,))


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
@pytest.mark.parametrize("encoding", ["one_hot", "codes"])
def test_numbers_and_images_keep_their_shape(name, encoding):
    info = catalogue.describe(name)
    assert encoded(info, encoding) == Encoded(info.kind, info.shape)


def test_a_mixed_table_has_a_place_for_everything():
    # 2 numbers, indicators of age and since, since with time 7, born without 5; colour 3 + 1, size 2 + 1.
    assert encoded(INFO, "one_hot") == Encoded("table", (2 + 2 + 7 + 5 + 4 + 3,))
    assert encoded(INFO, "codes") == Encoded("table", (2 + 2 + 7 + 5 + 2,), (4, 3))


def test_indicators_are_there_only_where_something_is_missing():
    complete = replace(INFO, columns=tuple(replace(column, missing=0) for column in COLUMNS))
    assert encoded(complete, "one_hot").input_shape == (encoded(INFO, "one_hot").input_shape[0] - 2,)


@pytest.mark.parametrize(("encoding", "most"), [("one_hot", MAX_ONE_HOT), ("codes", MAX_CODES)])
def test_rare_values_share_a_place_beyond_a_limit(encoding, most):
    for count in (most - 1, most, most + 1, 2 * most):
        shape = encoded(categories(count), encoding)
        width = shape.categories[0] if encoding == "codes" else shape.input_shape[0]
        assert width == min(count, most) + 1


def test_a_text_is_as_long_as_the_model_reads():
    assert encoded(TEXT, "one_hot") == Encoded("text", (128,), vocabulary=10_000)
    shape = encoded(TEXT, "codes", vocabulary_size=50, sequence_length=7)
    assert (shape.input_shape, shape.vocabulary, shape.bytes_per_sample) == ((7,), 50, 28)
