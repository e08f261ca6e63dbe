from dataclasses import replace

import numpy as np
import pytest
from tests.datasets.mixed_table import COLUMNS, INFO, reordered

from epochd.datasets.catalogue import describe
from epochd.datasets.info import Column
from epochd.datasets.preprocessing.matching import label_lookup, mismatches
from epochd.errors import DataError


def test_order_further_columns_and_other_categories_do_not_matter():
    assert mismatches(INFO, reordered().info) == []


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (describe("digits"), "image data for classification"),
        (describe("diabetes"), "table data for regression"),
        (replace(INFO, name="new", columns=COLUMNS[1:]), "no column 'age'"),
        (replace(INFO, name="new", columns=(Column("age", "date"), *COLUMNS[1:])), "is a date in new and a number"),
        (replace(INFO, name="new", classes=("no", "perhaps")), "class 'perhaps'.*the classes are no, yes"),
        (describe("iris"), "no column 'age'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(other, said):
    messages = mismatches(INFO, other)
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(" ".join(messages))


def test_shapes_and_targets_have_to_be_the_same():
    digits, diabetes = describe("digits"), describe("diabetes")
    (message,) = mismatches(digits, replace(digits, shape=(3, 8, 8)))
    assert "(3, 8, 8)" in message
    (message,) = mismatches(diabetes, replace(diabetes, targets=2))
    assert "2 targets" in message


def test_a_boolean_is_a_number():
    columns = tuple(replace(c, type="number") if c.type == "boolean" else c for c in COLUMNS)
    assert mismatches(INFO, replace(INFO, columns=columns)) == []


def test_labels_follow_the_names_of_the_classes():
    assert label_lookup(INFO, INFO.classes) is None
    fewer = replace(INFO, classes=("yes",))
    assert np.array_equal(label_lookup(fewer, INFO.classes), [1])
    with pytest.raises(DataError, match="'perhaps', which was not trained on"):
        label_lookup(replace(INFO, classes=("perhaps",)), INFO.classes)


def test_several_targets_of_a_table_have_to_be_the_same_in_their_order():
    trained = replace(describe("diabetes"), targets=2, target_names=("height", "weight"))
    assert mismatches(trained, replace(trained, name="new")) == []
    (message,) = mismatches(trained, replace(trained, name="new", target_names=("weight", "height")))
    assert "The targets of new are weight, height; those of diabetes are height, weight" in message
