"""The preprocessing as tensor operations: the same bits as in training."""

import numpy as np
import pytest
import torch
from tests.datasets.mixed_table import people
from torch import nn

from epochd.datasets.encoding import encoded
from epochd.datasets.info import DatasetInfo
from epochd.datasets.preprocessing import Preprocessing
from epochd.datasets.raw import MISSING_DATE, RawData
from epochd.training.portable import Portable, input_names


def table(encoding):
    raw = people()
    return raw, Preprocessing.fit(raw, np.arange(5), encoded(raw.info, encoding))


def images():
    x = np.random.default_rng(0).integers(0, 256, (9, 3, 4, 5), dtype=np.uint8)
    info = DatasetInfo("images", "classification", 9, (3, 4, 5), ("a", "b"), 0, "", "image")
    raw = RawData(info, {"x": x}, np.arange(9) % 2, "sha256:images")
    return raw, Preprocessing.fit(raw, np.arange(7), encoded(info, "one_hot"))


def texts():
    said = [f"word{i} and the word{i % 3}".encode() for i in range(9)]
    offsets = np.cumsum([0, *map(len, said)])
    info = DatasetInfo("texts", "classification", 9, (), ("a", "b"), 0, "", "text")
    parts = {"text": np.frombuffer(b"".join(said), np.uint8), "offsets": offsets}
    raw = RawData(info, parts, np.arange(9) % 2, "sha256:texts")
    shape = encoded(info, "one_hot", vocabulary_size=12, sequence_length=6)
    return raw, Preprocessing.fit(raw, np.arange(7), shape)


def run(preprocessing, inputs):
    described = preprocessing.as_dict()
    portable = Portable(nn.Identity(), {**described, "target_scale": None})
    return portable(*(torch.as_tensor(inputs[name]) for name in input_names(described))).numpy()


@pytest.mark.parametrize(
    "made",
    [lambda: table("one_hot"), lambda: table("codes"), images, texts],
    ids=["one_hot", "codes", "image", "text"],
)
def test_it_gives_the_bits_that_training_saw(made):
    raw, preprocessing = made()
    x = run(preprocessing, preprocessing.inputs(raw))
    expected = preprocessing.apply(raw)
    assert (x.dtype, x.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(x, expected)


def test_dates_of_all_times_have_the_same_bits():
    raw, preprocessing = table("one_hot")
    random = np.random.default_rng(1)
    dates = random.integers(-4 * 10**15, 8 * 10**15, (5000, 2))
    dates[::7, 0] = MISSING_DATE
    parts = {name: np.resize(part, (5000, part.shape[1])) for name, part in raw.parts.items()}
    many = RawData(raw.info, {**parts, "dates": dates}, np.zeros(5000, np.int64), "")
    np.testing.assert_array_equal(run(preprocessing, preprocessing.inputs(many)), preprocessing.apply(many))


def test_a_position_that_no_category_has_counts_as_unknown():
    raw, preprocessing = table("codes")
    inputs = dict(preprocessing.inputs(raw, np.arange(2)))
    unknown = run(preprocessing, {**inputs, "codes": np.zeros_like(inputs["codes"])})
    for position in (-1, 99):
        found = run(preprocessing, {**inputs, "codes": np.full_like(inputs["codes"], position)})
        np.testing.assert_array_equal(found, unknown)


def test_targets_come_in_their_own_units():
    info = DatasetInfo("numbers", "regression", 8, (2,), None, 2, "", "array")
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    y = (x * [10, 1000] + [5, -3]).astype(np.float32)
    raw = RawData(info, {"x": x}, y, "")
    preprocessing = Preprocessing.fit(raw, np.arange(8), encoded(info, "one_hot"))
    # Standardised x is standardised y here: the identity is the perfect model.
    predicted = Portable(nn.Identity(), preprocessing.as_dict())(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(predicted, y, rtol=1e-4, atol=1e-2)
