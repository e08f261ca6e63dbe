import numpy as np
import pytest

from epochd.datasets import builtin, catalogue
from epochd.errors import InvalidRequestError

BUNDLED = [name for name in catalogue.names() if name != "synthetic"]
SYNTHETIC = {
    "name": "synthetic", "task": "classification", "samples": 1000, "features": 20, "classes": 3,
    "targets": None, "noise": 0.1, "seed": 0,
}  # fmt: skip


def test_the_sets_of_the_contract_are_there():
    assert set(catalogue.names()) == {"digits", "iris", "wine", "breast_cancer", "diabetes", "synthetic"}


@pytest.mark.parametrize("name", BUNDLED)
def test_what_is_described_is_what_scikit_learn_bundles(name):
    import sklearn.datasets

    bundled = getattr(sklearn.datasets, f"load_{name}")()
    info = catalogue.describe(name)
    assert info.samples == len(bundled.data)
    assert np.prod(info.shape) == bundled.data.shape[1]
    if info.task == "classification":
        assert info.classes == tuple(str(label) for label in bundled.target_names)
    else:
        assert (info.classes, info.targets) == (None, 1)
        assert np.issubdtype(bundled.target.dtype, np.floating)


def test_digits_are_images():
    info = catalogue.describe("digits")
    assert (info.shape, info.is_image, info.outputs) == ((1, 8, 8), True, 10)


@pytest.mark.parametrize(
    ("task", "metrics"), [("digits", ("loss", "accuracy")), ("diabetes", ("loss", "r2"))]
)
def test_metrics_fit_the_task(task, metrics):
    assert catalogue.describe(task).metrics == metrics


def test_synthetic_is_described_by_its_spec():
    info = catalogue.describe(SYNTHETIC)
    assert (info.samples, info.shape, info.classes, info.outputs) == (1000, (20,), ("0", "1", "2"), 3)
    regression = catalogue.describe({**SYNTHETIC, "task": "regression", "classes": None, "targets": 2})
    assert (regression.task, regression.classes, regression.outputs) == ("regression", None, 2)


@pytest.mark.parametrize(
    ("asked", "meant"), [("digit", "digits"), ("IRIS", "iris"), ("brest_cancer", "breast_cancer")]
)
def test_an_unknown_name_says_what_was_meant(asked, meant):
    with pytest.raises(InvalidRequestError, match=f"Did you mean '{meant}'") as caught:
        catalogue.describe(asked)
    (error,) = caught.value.errors
    assert (error.param, error.code) == ("dataset", "unknown_dataset")


def test_a_name_like_nothing_lists_what_there_is():
    with pytest.raises(InvalidRequestError, match="There are: digits, iris") as caught:
        catalogue.describe("mnist-in-the-cloud")
    assert "Did you mean" not in caught.value.message


def test_loading_an_unknown_name_is_the_same_error():
    with pytest.raises(InvalidRequestError, match="There is no data set"):
        builtin.load("nope")


@pytest.mark.parametrize("name", BUNDLED)
def test_columns_and_class_counts_are_those_of_scikit_learn(name):
    import sklearn.datasets

    bundled = getattr(sklearn.datasets, f"load_{name}")()
    info = catalogue.describe(name)
    if info.kind == "table":
        assert [column.name for column in info.columns] == [str(feature) for feature in bundled.feature_names]
    if info.class_counts is not None:
        assert list(info.class_counts) == np.bincount(bundled.target).tolist()
    assert (info.class_counts is None) == (info.task == "regression")
