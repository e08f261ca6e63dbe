"""Made-up data sets, a function of their spec alone.

Every number comes from numpy's PCG64 in a fixed order and is then only added and multiplied element by
element (no BLAS, whose sums depend on the machine), so the same spec gives the same data wherever numpy's
streams are the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

CHUNK_SAMPLES = 8192
CENTRE_DISTANCE = 6.0
"""Typical distance of two cluster centres, in standard deviations of a cluster."""
CENTRE_DRAWS = 16
MAX_CLASSES_COMPARED = 64


def generate(spec: Mapping[str, Any]) -> tuple[Float32Array, Int64Array | Float32Array]:
    """Make the samples ``x`` (samples, features) and their labels (samples,) or targets (samples, targets).

    ``spec`` has every value filled in: task, samples, features, classes or targets, noise, seed.
    """
    rng = np.random.Generator(np.random.PCG64(spec["seed"]))
    if spec["task"] == "regression":
        return _linear(rng, spec["samples"], spec["features"], spec["targets"], spec["noise"])
    return _clusters(rng, spec["samples"], spec["features"], spec["classes"], spec["noise"])


def _clusters(
    rng: np.random.Generator, samples: int, features: int, classes: int, noise: float
) -> tuple[Float32Array, Int64Array]:
    """Unit Gaussians around one centre a class, equally many samples each; then ``noise`` redraws labels."""
    centres = _centres(rng, classes, features)
    labels = np.arange(samples, dtype=np.int64) % classes
    rng.shuffle(labels)
    x = rng.standard_normal((samples, features), dtype=np.float32)
    for rows in _chunks(samples):
        x[rows] += centres[labels[rows]]
    redrawn = rng.random(samples) < noise
    labels[redrawn] = rng.integers(classes, size=int(redrawn.sum()))
    return x, labels


def _centres(rng: np.random.Generator, classes: int, features: int) -> Float32Array:
    """Draw the centres; of several draws the one whose closest two are farthest apart, when classes are few.

    In one or two dimensions a single draw now and then puts two clusters on top of each other.
    """
    spread = np.float32(CENTRE_DISTANCE / np.sqrt(2.0 * features))
    if classes > MAX_CLASSES_COMPARED:
        return spread * rng.standard_normal((classes, features), dtype=np.float32)
    draws = [rng.standard_normal((classes, features), dtype=np.float32) for _ in range(CENTRE_DRAWS)]
    return spread * max(draws, key=_closest)


def _closest(centres: Float32Array) -> float:
    """Squared distance of the two centres that are closest to each other."""
    pairs = zip(*np.triu_indices(len(centres), k=1), strict=True)
    return min(float(np.square(centres[a] - centres[b], dtype=np.float64).sum()) for a, b in pairs)


def _linear(
    rng: np.random.Generator, samples: int, features: int, targets: int, noise: float
) -> tuple[Float32Array, Float32Array]:
    """Standard normal ``x``, and ``x @ w`` plus noise.

    Each column of ``w`` has length 1, hence each noiseless target deviation 1.
    """
    weights = rng.standard_normal((features, targets))
    weights /= np.sqrt(np.square(weights).sum(axis=0))
    x = rng.standard_normal((samples, features), dtype=np.float32)
    y = rng.standard_normal((samples, targets), dtype=np.float32)
    y *= np.float32(noise)
    for rows in _chunks(samples):
        y[rows] += _product(x[rows], weights)
    return x, y


def _product(x: Float32Array, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``x @ weights`` summed feature by feature: the same bits on every machine."""
    total = np.zeros((len(x), weights.shape[1]))
    for column, row in zip(np.ascontiguousarray(x.T, dtype=np.float64), weights, strict=True):
        total += column[:, None] * row
    return total


def _chunks(samples: int) -> Iterator[slice]:
    for start in range(0, samples, CHUNK_SAMPLES):
        yield slice(start, start + CHUNK_SAMPLES)
