"""A category as a position among the values that training saw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from epochd.datasets import encoding
from epochd.datasets.info import Column
from epochd.datasets.preprocessing.rows import Array, Rows, chunks

Positions = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """Position p ≥ 1 stands for ``values[p - 1]``, 0 for a value that is missing, unseen in training, or too rare.

    ``positions`` is how many there are, which depends on the data set alone: some may have no value.
    """

    name: str
    values: tuple[str, ...]
    positions: int

    @classmethod
    def fit(cls, column: Column, counts: Counts, how: encoding.Encoding) -> Self:
        """Choose the most frequent values, of equally frequent ones the first; ``counts`` is of each code."""
        categories = column.categories or ()
        positions = encoding.positions(column, how)
        frequent = np.argsort(-counts, kind="stable")[: positions - 1]
        kept = np.sort(frequent[counts[frequent] > 0])
        return cls(column.name, tuple(categories[code] for code in kept), positions)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``as_dict`` gave."""
        return cls(values["name"], tuple(values["values"]), values["positions"])

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"name": self.name, "values": list(self.values), "positions": self.positions}

    def lookup(self, categories: Sequence[str]) -> Positions:
        """The position of each code + 1 of a data set with these categories: matched by what they are called."""
        places = {value: position for position, value in enumerate(self.values, start=1)}
        return np.array([0, *(places.get(value, 0) for value in categories)], dtype=np.int32)


def fit_categories(
    columns: Sequence[Column], codes: Array, rows: Rows, how: encoding.Encoding
) -> tuple[CategoryColumn, ...]:
    """All categories of a table, read once; ``codes`` is (samples, columns)."""
    counts = [np.zeros(len(column.categories or ()) + 1, np.int64) for column in columns]
    for _, chunk in chunks(codes, rows):
        for place, part in enumerate(chunk.T):
            counts[place] += np.bincount(part + 1, minlength=len(counts[place]))
    return tuple(
        CategoryColumn.fit(column, found[1:], how) for column, found in zip(columns, counts, strict=True)
    )
