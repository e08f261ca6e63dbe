import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from epochd.datasets import builtin
from epochd.datasets.catalogue import describe
from epochd.datasets.encoding import encoded
from epochd.datasets.preprocessing import CHUNK_VALUES, Preprocessing
from epochd.datasets.preprocessing.rows import ALL
from epochd.datasets.raw import RawData
from epochd.errors import DataError

IRIS = describe("iris")
DIABETES = describe("diabetes")


def fit(info, x, y, rows=ALL):
    raw = of(info, x, y)
    return Preprocessing.fit(raw, rows, encoded(info, "one_hot")), raw


def of(info, x, y):
    return RawData(info, {"numbers" if info.kind == "table" else "x": x}, y, "sha256:")


def fitted(name):
    arrays = builtin.load(name)
    return fit(arrays.info, arrays.x, arrays.y)


def labels(samples):
    return np.zeros(samples, dtype=np.int64)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_each_feature_of_a_table_gets_mean_0_and_deviation_1(name):
    preprocessing, raw = fitted(name)
    x = preprocessing.apply(raw)
    assert x.dtype == np.float32
    assert np.allclose(x.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(x.std(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_the_bits_are_those_of_every_version(name):
    # As the first version computed them: a changed bit means that jobs of before cannot be reproduced or resumed.
    arrays = builtin.load(name)
    rows = np.flatnonzero(np.arange(len(arrays.x)) % 5)
    preprocessing, raw = fit(arrays.info, arrays.x, arrays.y, rows)
    x, axes = arrays.x[rows], (0, 2, 3) if name == "digits" else (0,)
    mean = x.sum(axis=axes, dtype=np.float64, keepdims=True) / (
        x.size // x.shape[1] if name == "digits" else len(x)
    )
    squares = np.square(x - mean).sum(axis=axes, keepdims=True)
    deviation = np.sqrt(squares / (x.size // x.shape[1] if name == "digits" else len(x)))
    deviation[deviation <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    expected = (x - mean.astype(np.float32)) / deviation.astype(np.float32)
    assert np.array_equal(preprocessing.apply(raw, rows), expected)


def test_images_are_standardised_per_channel():
    preprocessing, raw = fitted("digits")
    x = preprocessing.apply(raw)
    assert preprocessing.mean.shape == preprocessing.scale.shape == (1, 1, 1)
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_each_of_several_channels_has_its_own_scale(dtype):
    info = replace(describe("digits"), name="rgb", shape=(3, 2, 2))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 3, 2, 2)) * [[[2]], [[10]], [[20]]] + 128).astype(dtype)
    preprocessing, raw = fit(info, x, labels(500))
    assert preprocessing.scale.shape == (3, 1, 1)
    assert preprocessing.scale.ravel() == pytest.approx([2, 10, 20], rel=0.1)
    assert preprocessing.apply(raw).std(axis=(0, 2, 3)) == pytest.approx([1, 1, 1], rel=1e-4)


def test_an_array_is_standardised_value_by_value():
    info = replace(describe("digits"), name="waves", shape=(2, 5), kind="array")
    x = (np.random.default_rng(0).standard_normal((300, 2, 5)) * 7 + np.arange(5)).astype(np.float32)
    preprocessing, raw = fit(info, x, labels(300))
    assert preprocessing.mean.shape == (2, 5)
    assert np.allclose(preprocessing.apply(raw).mean(axis=0), 0, atol=1e-5)


def test_labels_stay_and_targets_are_standardised():
    preprocessing, raw = fitted("iris")
    assert preprocessing.targets(raw.y) is raw.y
    assert (preprocessing.target_mean, preprocessing.target_scale) == (None, None)
    preprocessing, raw = fitted("diabetes")
    y = preprocessing.targets(raw.y)
    assert y.shape == raw.y.shape
    assert y.std() == pytest.approx(1, abs=1e-5)


def test_only_what_was_fitted_on_counts():
    arrays = builtin.load("diabetes")
    train, _ = fit(DIABETES, arrays.x, arrays.y, np.arange(300))
    assert np.allclose(train.mean, arrays.x[:300].mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert not np.array_equal(train.mean, fitted("diabetes")[0].mean)


def test_the_measured_arrays_are_not_changed():
    arrays = builtin.load("diabetes")
    before = arrays.digest
    preprocessing, raw = fitted("diabetes")
    preprocessing.apply(raw)
    preprocessing.targets(raw.y)
    assert builtin.Arrays(arrays.x, arrays.y, arrays.info).digest == before


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e7])
def test_a_constant_feature_becomes_zero(constant):
    x = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)
    x[:, 2] = constant
    preprocessing, raw = fit(IRIS, x, labels(150))
    assert preprocessing.scale[2] == 1
    assert np.all(preprocessing.apply(raw)[:, 2] == 0)


def test_a_constant_target_becomes_zero():
    x = np.random.default_rng(0).standard_normal((20, 10)).astype(np.float32)
    y = np.full((20, 1), 7.0, dtype=np.float32)
    preprocessing, _ = fit(DIABETES, x, y)
    assert np.all(preprocessing.targets(y) == 0)


def test_one_sample_is_enough():
    x = np.ones((1, 4), dtype=np.float32)
    preprocessing, raw = fit(IRIS, x, labels(1))
    assert np.all(preprocessing.apply(raw) == 0)


def test_many_chunks_give_what_one_would():
    rows = CHUNK_VALUES // 4 * 2 + 3
    x = np.random.default_rng(0).normal(1e4, 3, (rows, 4)).astype(np.float32)
    preprocessing, raw = fit(IRIS, x, labels(rows))
    assert np.array_equal(preprocessing.apply(raw)[-2:], preprocessing.apply(raw, slice(rows - 2, rows)))
    assert np.allclose(preprocessing.mean, x.mean(axis=0, dtype=np.float64), rtol=1e-7)
    assert np.allclose(preprocessing.scale, x.std(axis=0, dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("name", ["digits", "wine"])
def test_a_reader_with_torch_alone_gets_the_same_bits(name):
    arrays, (preprocessing, raw) = builtin.load(name), fitted(name)
    stored = json.loads(json.dumps(preprocessing.as_dict()))
    mean, scale = torch.tensor(stored["mean"]), torch.tensor(stored["scale"])
    ours = preprocessing.apply(raw)
    assert torch.equal((torch.tensor(arrays.x) - mean) / scale, torch.from_numpy(ours))
    one = (torch.tensor(arrays.x[0]) - mean) / scale
    assert one.shape == arrays.info.shape
    assert stored["classes"] == list(arrays.info.classes)
    assert stored["target_mean"] is None


def test_a_reader_maps_predictions_back_to_targets():
    preprocessing, raw = fitted("diabetes")
    stored = json.loads(json.dumps(preprocessing.as_dict()))
    y = preprocessing.targets(raw.y)
    back = torch.from_numpy(y) * torch.tensor(stored["target_scale"]) + torch.tensor(stored["target_mean"])
    assert torch.allclose(back, torch.from_numpy(np.array(raw.y)), rtol=1e-5)
    assert stored["classes"] is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_row(bad):
    arrays = builtin.load("iris")
    x = arrays.x.copy()
    x[77, 1] = bad
    with pytest.raises(DataError, match=r"'sepal width \(cm\)' holds NaN or infinity, first in row 77"):
        fit(IRIS, x, arrays.y)
    with pytest.raises(DataError, match="row 77"):
        fit(IRIS, x, arrays.y, np.arange(70, 80))
    fit(IRIS, x, arrays.y, np.arange(70))


def test_infinity_is_never_applied_to():
    preprocessing, raw = fitted("iris")
    x = raw.parts["numbers"].copy()
    x[77, 1] = np.inf
    with pytest.raises(DataError, match="row 77"):
        preprocessing.apply(of(IRIS, x, raw.y), np.arange(50, 100))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_that_is_not_finite_names_its_row(bad):
    preprocessing, raw = fitted("digits")
    x = raw.parts["x"].copy()
    x[77, 0, 3, 3] = bad
    with pytest.raises(DataError, match="row 77"):
        fit(raw.info, x, raw.y)
    with pytest.raises(DataError, match="row 77"):
        preprocessing.apply(of(raw.info, x, raw.y))


def test_a_target_that_is_not_finite_names_its_row():
    arrays = builtin.load("diabetes")
    y = arrays.y.copy()
    y[5] = np.nan
    with pytest.raises(DataError, match="targets hold NaN or infinity, first in row 5"):
        fit(DIABETES, arrays.x, y)


def test_the_row_is_counted_across_chunks():
    x = np.zeros((CHUNK_VALUES, 4), dtype=np.float32)
    x[CHUNK_VALUES - 2, 0] = np.nan
    with pytest.raises(DataError, match=f"row {CHUNK_VALUES - 2}:"):
        fit(IRIS, x, labels(len(x)))


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.zeros((0, 4)), np.zeros(0), "empty"),
        (np.zeros((3, 5)), np.zeros(3), r"\(5,\) among its numbers; \(4,\) was expected"),
        (np.zeros((3, 3)), np.zeros(3), r"\(3,\) among its numbers; \(4,\) was expected"),
        (np.zeros((3, 4)), np.zeros(2), "3 samples, but 2 labels"),
        (np.zeros((3, 4)), np.array([0, 1, 3]), "0 to 2 are known"),
        (np.zeros((3, 4)), np.array([-1, 1, 2]), "from -1 to 2"),
    ],
)
def test_what_does_not_fit_the_data_set_is_refused(x, y, said):
    with pytest.raises(DataError, match=said) as caught:
        fit(IRIS, x.astype(np.float32), y.astype(np.int64))
    assert caught.value.category == "data"


@pytest.mark.parametrize("name", ["digits", "wine", "diabetes"])
def test_what_was_stored_applies_the_same_bits(name):
    preprocessing, raw = fitted(name)
    again = Preprocessing.from_dict(json.loads(json.dumps(preprocessing.as_dict())))
    assert again.as_dict() == preprocessing.as_dict()
    assert np.array_equal(again.apply(raw), preprocessing.apply(raw))
    assert np.array_equal(again.targets(raw.y), preprocessing.targets(raw.y))


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_what_the_first_version_stored_is_still_read(name):
    preprocessing, raw = fitted(name)
    new = preprocessing.as_dict()
    stored = {key: new[key] for key in ("mean", "scale", "classes", "target_mean", "target_scale")}
    again = Preprocessing.from_dict({**stored, "input_shape": list(raw.info.shape)})
    x = preprocessing.apply(raw)
    nameless = replace(raw, info=replace(raw.info, columns=()))
    assert np.array_equal(again.apply(nameless), x)
    if name == "digits":
        with pytest.raises(DataError, match="input_shape"):
            Preprocessing.from_dict(stored)


@pytest.mark.parametrize("rows", [slice(None), slice(3, 140), np.array([149, 0, 7, 7])])
def test_a_row_is_the_same_whichever_are_read_with_it(rows):
    preprocessing, raw = fitted("iris")
    assert np.array_equal(preprocessing.apply(raw, rows), preprocessing.apply(raw)[rows])


def test_another_kind_of_data_is_refused():
    preprocessing, _ = fitted("iris")
    with pytest.raises(DataError, match="image; table was trained on"):
        preprocessing.apply(builtin.load("digits").raw)
