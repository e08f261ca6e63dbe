"""Standardisation, fitted on the training split alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from epochd.datasets.info import DatasetInfo
from epochd.errors import DataError

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

CHUNK_VALUES = 2**20
FLOAT32_RESOLUTION = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Preprocessing:
    """What turns measured samples into what the model sees, and its outputs into what they mean.

    ``mean`` and ``scale`` broadcast against one sample: per feature (features,), per channel (channels, 1,
    1).
    ``target_mean`` and ``target_scale`` (targets,) are None for classification, ``classes`` is None for
    regression.
    """

    mean: Float32Array
    scale: Float32Array
    classes: tuple[str, ...] | None
    target_mean: Float32Array | None
    target_scale: Float32Array | None

    @classmethod
    def fit(cls, info: DatasetInfo, x_train: Float32Array, y_train: Labels | Float32Array) -> "Preprocessing":
        """Measure mean and standard deviation of the training split.

        ``x_train`` is (n, *info.shape), ``y_train`` (n,) or (n, targets). Raises ``DataError`` when shapes or
        labels do not fit ``info``, or a value is NaN or infinite.
        """
        _check(info, x_train, y_train)
        mean, scale = _standardisation(x_train, per_channel=info.is_image)
        if info.task == "classification":
            return cls(mean, scale, info.classes, None, None)
        return cls(mean, scale, None, *_standardisation(y_train.astype(np.float32), per_channel=False))

    def apply(self, x: Float32Array, y: Labels | Float32Array) -> tuple[Float32Array, Labels | Float32Array]:
        """Standardise samples and, for regression, targets: new arrays, float32; labels stay as they are.

        Raises ``DataError`` when a value is NaN or infinite.
        """
        _check_finite(x, "samples")
        if self.target_mean is None or self.target_scale is None:
            return _scaled(x, self.mean, self.scale), y
        _check_finite(y, "targets")
        return _scaled(x, self.mean, self.scale), _scaled(y, self.target_mean, self.target_scale)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact: nested lists of the shapes above.

        A reader computes ``(x - mean) / scale`` in float32; for classification output i is the score of
        ``classes[i]``, for regression the prediction is ``output * target_scale + target_mean``.
        """
        return {
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "classes": None if self.classes is None else list(self.classes),
            "target_mean": None if self.target_mean is None else self.target_mean.tolist(),
            "target_scale": None if self.target_scale is None else self.target_scale.tolist(),
        }


def _scaled(x: npt.NDArray[Any], mean: Float32Array, scale: Float32Array) -> Float32Array:
    scaled: Float32Array = np.subtract(x, mean, dtype=np.float32)
    scaled /= scale
    return scaled


def _standardisation(x: Float32Array, *, per_channel: bool) -> tuple[Float32Array, Float32Array]:
    """Mean and population standard deviation in float64, chunk by chunk so that no float64 copy is held."""
    axes = (0, *range(2, x.ndim)) if per_channel else (0,)
    count = x.size // (x.shape[1] if per_channel else x[0].size)
    mean = sum(chunk.sum(axis=axes, dtype=np.float64, keepdims=True) for chunk in _chunks(x)) / count
    squares = sum(np.square(chunk - mean).sum(axis=axes, keepdims=True) for chunk in _chunks(x))
    deviation: Float64Array = np.sqrt(squares / count)
    # What varies by less than float32 can tell apart is constant: dividing by it would blow up rounding
    # errors.
    scale = np.where(deviation <= FLOAT32_RESOLUTION * np.abs(mean), 1.0, deviation)
    return mean[0].astype(np.float32), scale[0].astype(np.float32)


def _check(info: DatasetInfo, x: Float32Array, y: Labels | Float32Array) -> None:
    if len(x) == 0:
        raise DataError(f"The training split of {info.name} is empty; at least 1 sample is needed.")
    if x.shape[1:] != info.shape:
        raise DataError(f"A sample of {info.name} has the shape {x.shape[1:]}; {info.shape} was expected.")
    if len(y) != len(x):
        raise DataError(
            f"{info.name} has {len(x)} samples, but {len(y)} labels or targets; one each is needed."
        )
    _check_finite(x, "samples")
    if info.task == "regression":
        _check_finite(y, "targets")
    elif y.min() < 0 or y.max() >= info.outputs:
        raise DataError(
            f"The labels of {info.name} run from {y.min()} to {y.max()}; 0 to {info.outputs - 1} are known."
        )


def _check_finite(values: npt.NDArray[Any], what: str) -> None:
    start = 0
    for chunk in _chunks(values):
        finite = np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise DataError(
                f"The {what} hold NaN or infinity, first in row {row}: remove such rows or fill them with a "
                "number."
            )
        start += len(chunk)


def _chunks(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    rows = max(1, CHUNK_VALUES // max(1, values[0].size)) if len(values) else 1
    for start in range(0, len(values), rows):
        yield values[start : start + rows]
