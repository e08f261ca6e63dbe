import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from epochd.datasets import builtin
from epochd.datasets.catalogue import describe
from epochd.datasets.preprocessing import CHUNK_VALUES, Preprocessing
from epochd.errors import DataError

IRIS = describe("iris")
DIABETES = describe("diabetes")


def fitted(name):
    arrays = builtin.load(name)
    return Preprocessing.fit(arrays.info, arrays.x, arrays.y), arrays


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_each_feature_of_a_table_gets_mean_0_and_deviation_1(name):
    preprocessing, arrays = fitted(name)
    x, _ = preprocessing.apply(arrays.x, arrays.y)
    assert x.dtype == np.float32
    assert np.allclose(x.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(x.std(axis=0), 1, atol=1e-5)


def test_images_are_standardised_per_channel():
    preprocessing, arrays = fitted("digits")
    x, _ = preprocessing.apply(arrays.x, arrays.y)
    assert preprocessing.mean.shape == preprocessing.scale.shape == (1, 1, 1)
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)


def test_each_of_several_channels_has_its_own_scale():
    info = replace(describe("digits"), name="rgb", shape=(3, 2, 2))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 3, 2, 2)) * [[[1]], [[10]], [[100]]] + 5).astype(np.float32)
    preprocessing = Preprocessing.fit(info, x, np.zeros(500, dtype=np.int64))
    assert preprocessing.scale.shape == (3, 1, 1)
    assert preprocessing.scale.ravel() == pytest.approx([1, 10, 100], rel=0.05)


def test_labels_stay_and_targets_are_standardised():
    preprocessing, arrays = fitted("iris")
    assert preprocessing.apply(arrays.x, arrays.y)[1] is arrays.y
    assert (preprocessing.target_mean, preprocessing.target_scale) == (None, None)
    preprocessing, arrays = fitted("diabetes")
    _, y = preprocessing.apply(arrays.x, arrays.y)
    assert y.shape == arrays.y.shape
    assert y.std() == pytest.approx(1, abs=1e-5)


def test_only_what_was_fitted_on_counts():
    arrays = builtin.load("diabetes")
    train = Preprocessing.fit(DIABETES, arrays.x[:300], arrays.y[:300])
    assert np.allclose(train.mean, arrays.x[:300].mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert not np.array_equal(train.mean, fitted("diabetes")[0].mean)


def test_the_measured_arrays_are_not_changed():
    preprocessing, arrays = fitted("diabetes")
    before = arrays.digest
    preprocessing.apply(arrays.x, arrays.y)
    assert builtin.Arrays(arrays.x, arrays.y, arrays.info).digest == before


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7])
def test_a_constant_feature_becomes_zero(constant):
    x = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)
    x[:, 2] = constant
    preprocessing = Preprocessing.fit(IRIS, x, np.zeros(150, dtype=np.int64))
    assert preprocessing.scale[2] == 1
    assert np.all(preprocessing.apply(x, np.zeros(150, dtype=np.int64))[0][:, 2] == 0)


def test_a_constant_target_becomes_zero():
    x = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32)
    y = np.full((20, 1), 7.0, dtype=np.float32)
    preprocessing = Preprocessing.fit(DIABETES, x, y)
    assert np.all(preprocessing.apply(x, y)[1] == 0)


def test_one_sample_is_enough():
    x = np.ones((1, 4), dtype=np.float32)
    preprocessing = Preprocessing.fit(IRIS, x, np.zeros(1, dtype=np.int64))
    assert np.all(preprocessing.apply(x, np.zeros(1, dtype=np.int64))[0] == 0)


def test_many_chunks_give_what_one_would():
    rows = CHUNK_VALUES // 4 * 2 + 3
    x = np.random.default_rng(0).normal(1e4, 3, (rows, 4)).astype(np.float32)
    preprocessing = Preprocessing.fit(IRIS, x, np.zeros(rows, dtype=np.int64))
    assert np.allclose(preprocessing.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-7)
    assert np.allclose(preprocessing.scale, x.std(axis=0, dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_a_reader_with_torch_alone_gets_the_same_bits(name):
    preprocessing, arrays = fitted(name)
    stored = json.loads(json.dumps(preprocessing.as_dict()))
    mean, scale = torch.tensor(stored["mean"]), torch.tensor(stored["scale"])
    ours, _ = preprocessing.apply(arrays.x, arrays.y)
    assert torch.equal((torch.from_numpy(arrays.x) - mean) / scale, torch.from_numpy(ours))
    one = (torch.from_numpy(arrays.x[0]) - mean) / scale
    assert one.shape == arrays.info.shape
    assert stored["classes"] == list(arrays.info.classes)
    assert stored["target_mean"] is None


def test_a_reader_maps_predictions_back_to_targets():
    preprocessing, arrays = fitted("diabetes")
    stored = json.loads(json.dumps(preprocessing.as_dict()))
    _, y = preprocessing.apply(arrays.x, arrays.y)
    back = torch.from_numpy(y) * torch.tensor(stored["target_scale"]) + torch.tensor(stored["target_mean"])
    assert torch.allclose(back, torch.from_numpy(arrays.y), rtol=1e-5)
    assert stored["classes"] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_row(bad):
    preprocessing, arrays = fitted("iris")
    x = arrays.x.copy()
    x[77, 1] = bad
    with pytest.raises(DataError, match="row 77"):
        Preprocessing.fit(IRIS, x, arrays.y)
    with pytest.raises(DataError, match="row 77"):
        preprocessing.apply(x, arrays.y)


def test_a_target_that_is_not_finite_names_its_row():
    arrays = builtin.load("diabetes")
    y = arrays.y.copy()
    y[5] = np.nan
    with pytest.raises(DataError, match="targets hold NaN or infinity, first in row 5"):
        Preprocessing.fit(DIABETES, arrays.x, y)


def test_the_row_is_counted_across_chunks():
    x = np.zeros((CHUNK_VALUES, 4), dtype=np.float32)
    x[CHUNK_VALUES - 2, 0] = np.nan
    with pytest.raises(DataError, match=f"row {CHUNK_VALUES - 2}:"):
        Preprocessing.fit(IRIS, x, np.zeros(len(x), dtype=np.int64))


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((0, 4)), np.zeros(0), "empty"),
        (np.zeros((3, 5)), np.zeros(3), r"\(5,\); \(4,\) was expected"),
        (np.zeros((3, 4)), np.zeros(2), "3 samples, but 2 labels"),
        (np.zeros((3, 4)), np.array([0, 1, 3]), "0 to 2 are known"),
        (np.zeros((3, 4)), np.array([-1, 1, 2]), "from -1 to 2"),
    ],
)
def test_what_does_not_fit_the_data_set_is_refused(x, y, said):
    with pytest.raises(DataError, match=said) as caught:
        Preprocessing.fit(IRIS, x.astype(np.float32), y.astype(np.int64))
    assert caught.value.category == "data"
