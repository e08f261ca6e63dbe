"""What the preprocessing of each kind of data set can do."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from epochd.datasets.preprocessing.rows import Array, Rows
from epochd.datasets.raw import RawData

Inputs = Mapping[str, Array]
"""Samples as they were measured, matched to what training saw: see ``Preprocessing.inputs``."""
ReadInputs = Callable[[Rows], Inputs]


class Steps(Protocol):
    """From a data set to ``Inputs``, and from these to what a model gets, row by row."""

    @property
    def dtype(self) -> type[np.float32] | type[np.int32]:
        """What a model gets."""

    def reading(self, raw: RawData) -> ReadInputs:
        """Match a data set to the one that was fitted on. Raises ``DataError`` when it has other columns or shapes."""

    def encode(self, inputs: Inputs, out: Array) -> None:
        """Write what a model gets: tensor operations alone. ``out`` is (n, *input_shape)."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, exact."""
