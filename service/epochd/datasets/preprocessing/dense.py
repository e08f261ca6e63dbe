"""Images and other arrays: standardised per channel, or per value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from epochd.datasets.preprocessing.rows import Array, Rows, chunks, part_of, require_finite, take
from epochd.datasets.preprocessing.standardisation import Standardisation
from epochd.datasets.preprocessing.steps import Inputs, ReadInputs
from epochd.datasets.raw import RawData
from epochd.errors import DataError

SAMPLES = "samples"


@dataclass(frozen=True)
class DenseSteps:
    """``inputs`` is ``{"x": (n, *shape)}``, uint8 or float32."""

    standardisation: Standardisation
    shape: tuple[int, ...]
    dtype = np.float32

    @classmethod
    def fit(cls, raw: RawData, rows: Rows) -> Self:
        """Measure the training split."""
        x = raw.parts["x"]
        for start, chunk in chunks(x, rows):
            require_finite(chunk, part_of(rows, start, start + len(chunk)), SAMPLES)
        fitted = Standardisation.fit(x, rows, per_channel=raw.info.is_image)
        return cls(fitted, raw.info.shape)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(Standardisation.from_dict(values), tuple(values["input_shape"]))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact."""
        return self.standardisation.as_dict()

    def reading(self, raw: RawData) -> ReadInputs:
        """Raise ``DataError`` for samples of another shape."""
        x = np.asarray(raw.parts["x"])
        if x.shape[1:] != self.shape:
            raise DataError(
                f"A sample of {raw.info.name} has the shape {x.shape[1:]}; {self.shape} was trained on."
            )
        return lambda rows: {"x": take(x, rows)}

    def encode(self, inputs: Inputs, out: Array) -> None:
        """``(x - mean) / scale`` in float32."""
        self.standardisation.apply(inputs["x"], out)
