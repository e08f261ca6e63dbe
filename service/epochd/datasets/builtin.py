"""Built-in data sets as arrays."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from epochd.datasets import synthetic
from epochd.datasets.catalogue import describe, names
from epochd.datasets.info import DatasetInfo
from epochd.datasets.raw import RawData

Float32Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Arrays:
    """A data set in memory.

    ``x`` is float32 (samples, *shape), as it was measured; ``y`` is int64 (samples,), a label for each
    sample, or float32 (samples, targets).
    """

    x: Float32Array
    y: Labels | Float32Array
    info: DatasetInfo

    @cached_property
    def digest(self) -> str:
        """SHA-256 over types, shapes and bytes (little-endian, row by row) of both: ``sha256:…``."""
        digest = hashlib.sha256()
        for array in (self.x, self.y):
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            digest.update(little.data)
        return f"sha256:{digest.hexdigest()}"

    @property
    def raw(self) -> RawData:
        """The same as any data set is given: a table's measurements are all numbers."""
        return RawData(
            self.info, {"numbers" if self.info.kind == "table" else "x": self.x}, self.y, self.digest
        )


def preload() -> None:
    """Read all bundled sets, a second for the import included: call it before forking processes that load data."""
    for name in names():
        if name != "synthetic":
            load(name)


def load(dataset: str | Mapping[str, Any]) -> Arrays:
    """Read a built-in data set, or make a synthetic one from its spec with all values filled in.

    Raises ``InvalidRequestError`` for a name that is not there.
    """
    info = describe(dataset)
    if isinstance(dataset, Mapping):
        x, y = synthetic.generate(dataset)
        return Arrays(x, y, info)
    return _load_bundled(info)


@cache
def _load_bundled(info: DatasetInfo) -> Arrays:
    # Importing scikit-learn takes a second, and the API process must not do it at all.
    bundled = importlib.import_module("sklearn.datasets")
    # The raw measurements: scikit-learn's scaled diabetes set was scaled on all samples, validation included.
    options = {"scaled": False} if info.name == "diabetes" else {}
    x, y = getattr(bundled, f"load_{info.name}")(return_X_y=True, **options)
    samples = np.ascontiguousarray(x, dtype=np.float32).reshape(info.samples, *info.shape)
    targets = y.astype(np.int64) if info.task == "classification" else y.astype(np.float32)
    if info.task == "regression":
        targets = targets.reshape(info.samples, info.targets)
    # Shared by all who load it.
    samples.flags.writeable = targets.flags.writeable = False
    return Arrays(samples, targets, info)
