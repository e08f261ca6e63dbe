"""What a sample of each class counts in the loss."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ClassWeights = Literal["balanced"] | Sequence[float]


def normalised(weights: ClassWeights | None, y: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float64]:
    """What a sample of each class counts, (classes,): on average over the training labels ``y`` exactly 1.

    Of given weights w these are w[c] * n / sum over the n samples of w[y[i]]; ``balanced`` are those of w[c] = 1 /
    (samples of class c), by which all classes count alike. A class without a sample in ``y`` counts 1 with
    ``balanced``. All are 1 for None.
    """
    counts = np.bincount(y, minlength=classes)[:classes]
    if weights is None:
        return np.ones(classes)
    if weights == "balanced":
        present = int((counts > 0).sum())
        return np.where(counts > 0, len(y) / (present * np.maximum(counts, 1)), 1.0)
    given = np.asarray(weights, dtype=np.float64)
    scaled: npt.NDArray[np.float64] = given * (len(y) / (given * counts).sum())
    return scaled
