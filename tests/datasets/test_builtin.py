import subprocess
import sys

import numpy as np
import pytest

from epochd.datasets import builtin, catalogue

BUNDLED = [name for name in catalogue.names() if name != "synthetic"]


@pytest.mark.parametrize("name", BUNDLED)
def test_arrays_are_as_described(name):
    arrays = builtin.load(name)
    info = arrays.info
    assert arrays.x.shape == (info.samples, *info.shape)
    assert arrays.x.dtype == np.float32
    assert np.isfinite(arrays.x).all()
    if info.task == "classification":
        assert (arrays.y.shape, arrays.y.dtype) == ((info.samples,), np.int64)
        assert set(arrays.y.tolist()) == set(range(info.outputs))
    else:
        assert (arrays.y.shape, arrays.y.dtype) == ((info.samples, info.targets), np.float32)


def test_pixels_of_a_digit_lie_where_they_were():
    import sklearn.datasets

    images = sklearn.datasets.load_digits().images
    assert np.array_equal(builtin.load("digits").x[:, 0], images.astype(np.float32))


def test_diabetes_is_as_it_was_measured():
    # Column 0 is the age in years; scikit-learn's default would be scaled on all samples.
    age = builtin.load("diabetes").x[:, 0]
    assert 18 < age.min() < age.max() < 80


def test_the_digest_names_the_data():
    digits = builtin.load("digits")
    assert digits.digest == builtin.load("digits").digest
    assert digits.digest.startswith("sha256:")
    assert len(digits.digest) == len("sha256:") + 64
    changed = digits.y.copy()
    changed[0] += 1
    assert builtin.Arrays(digits.x, changed, digits.info).digest != digits.digest
    reshaped = digits.x.reshape(len(digits.x), 64)
    assert builtin.Arrays(reshaped, digits.y, digits.info).digest != digits.digest


def test_the_digest_is_of_the_values_not_of_their_place_in_memory():
    digits = builtin.load("digits")
    strided = np.asfortranarray(digits.x)
    assert builtin.Arrays(strided, digits.y, digits.info).digest == digits.digest


def test_describing_and_importing_read_nothing():
    program = """
import sys
from epochd.datasets import builtin, catalogue, preprocessing
catalogue.describe("digits")
print(*{"sklearn", "torch", "scipy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
