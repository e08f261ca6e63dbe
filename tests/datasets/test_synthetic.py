import hashlib
import tracemalloc

import numpy as np
import pytest

from epochd.datasets import builtin
from epochd.datasets.catalogue import synthetic_bytes
from epochd.datasets.synthetic import CHUNK_SAMPLES, generate


def classification(**changes):
    return {
        "name": "synthetic", "task": "classification", "samples": 1000, "features": 20, "classes": 2,
        "targets": None, "noise": 0.1, "seed": 0, **changes,
    }  # fmt: skip


def regression(**changes):
    return {**classification(), "task": "regression", "classes": None, "targets": 1, **changes}


def nearest_centre_accuracy(x, y, classes):
    """How well the class means tell the classes apart: what training can reach."""
    centres = np.stack([x[y == label].mean(axis=0) for label in range(classes)])
    nearest = np.argmin(((x[:, None] - centres) ** 2).sum(axis=-1), axis=1)
    return float((nearest == y).mean())


@pytest.mark.parametrize("make", [classification, regression])
def test_the_same_spec_gives_the_same_bits(make):
    assert builtin.load(make()).digest == builtin.load(make()).digest
    assert builtin.load(make()).digest != builtin.load(make(seed=1)).digest


@pytest.mark.parametrize(
    ("spec", "digest"),
    [
        (classification(samples=100, features=3), "554e5b7d6f9a507d"),
        (regression(samples=100, features=3, targets=2), "9e7805fcaa7f020d"),
    ],
)
def test_the_bits_are_those_of_every_version(spec, digest):
    # A changed digest means that jobs of before cannot be reproduced any more.
    x, y = generate(spec)
    assert hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()[:16] == digest


def test_classes_are_balanced_clusters():
    x, y = generate(classification(classes=4, noise=0.0))
    assert np.bincount(y).tolist() == [250] * 4
    assert nearest_centre_accuracy(x, y, 4) > 0.97
    within = np.concatenate([x[y == label] - x[y == label].mean(axis=0) for label in range(4)])
    assert within.std() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("features", [1, 2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_two_clusters_never_lie_on_top_of_each_other(features, seed):
    x, y = generate(classification(features=features, noise=0.0, seed=seed))
    assert nearest_centre_accuracy(x, y, 2) > 0.95


def test_samples_are_not_in_the_order_of_their_classes():
    _, y = generate(classification(noise=0.0))
    assert (np.diff(y) != 0).sum() > 300


@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_noise_is_the_fraction_of_labels_drawn_at_random(noise):
    x, clean = generate(classification(samples=20_000, noise=0.0))
    same, noisy = generate(classification(samples=20_000, noise=noise))
    assert np.array_equal(x, same)
    # Half of the labels drawn at random among two classes come out as they were.
    assert (clean != noisy).mean() == pytest.approx(noise / 2, abs=0.02)


def test_regression_is_linear_with_unit_deviation():
    x, y = generate(regression(samples=5000, noise=0.0, targets=3))
    weights, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert np.allclose(x @ weights, y, atol=1e-4)
    assert y.std(axis=0) == pytest.approx(np.ones(3), abs=0.05)


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_regression_noise_is_in_deviations_of_the_target(noise):
    _, clean = generate(regression(samples=20_000, noise=0.0))
    _, noisy = generate(regression(samples=20_000, noise=noise))
    assert (noisy - clean).std() == pytest.approx(noise, rel=0.05)


@pytest.mark.parametrize("make", [classification, regression])
@pytest.mark.parametrize("samples", [2, CHUNK_SAMPLES, CHUNK_SAMPLES + 1])
def test_chunks_cover_all_samples(make, samples):
    x, y = generate(make(samples=samples, noise=0.0))
    assert len(x) == len(y) == samples
    assert np.abs(y[-1]).sum() > 0 or make is classification


@pytest.mark.parametrize("make", [classification, regression])
def test_memory_stays_near_the_size_of_the_data(make):
    spec = make(samples=200_000, features=32)
    size = synthetic_bytes(samples=200_000, features=32, outputs=2)
    tracemalloc.start()
    generate(spec)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / 2 < peak < 1.6 * size
