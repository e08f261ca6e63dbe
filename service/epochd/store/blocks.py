"""Aligned blocks of iterations: columns of float32 on one side, texts of JSON arrays on the other.

Block b holds iterations b·1024+1 … (b+1)·1024. A text is written once and spliced unread into answers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.store.tables import BLOCK_ITERATIONS

COLUMNS = ITERATION_FIELDS
"""The recorded columns of an iteration."""

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """All that an attempt has recorded of an aligned block so far: columns of equal length n, 1 … 1024.

    The columns begin with the block's first iteration, or with ``first_iteration`` in the block in which a
    resumed attempt began.

    Raises:
        ValueError: when the columns differ in length, are empty, or reach beyond the block.

    """

    number: int
    train_loss: Float32Array
    learning_rate: Float32Array
    gradient_norm: Float32Array
    samples_per_second: Float32Array
    first_iteration: int | None = None

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in COLUMNS}
        inside = block_of(self.first) == self.number == block_of(self.last)
        if len(lengths) != 1 or lengths == {0} or not inside:
            raise ValueError(
                f"block {self.number} cannot hold columns of {sorted(lengths)} values from {self.first} on"
            )

    @property
    def first(self) -> int:
        """The iteration of the columns' first value."""
        return self.first_iteration or self.number * BLOCK_ITERATIONS + 1

    @property
    def last(self) -> int:
        """The iteration of the columns' last value."""
        return self.first + len(self.train_loss) - 1

    def as_row(self) -> dict[str, Any]:
        """Write the block as the columns of ``tables.iteration_blocks`` that depend on nothing else."""
        arrays = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in COLUMNS}
        return {
            "block": self.number,
            "first_iteration": self.first,
            "iterations": len(self.train_loss),
            **{name: dump(array).decode() for name, array in arrays.items()},
        }


def block_of(iteration: int) -> int:
    """Tell which block an iteration (counted from 1) belongs to."""
    return (iteration - 1) // BLOCK_ITERATIONS


def dump(array: npt.NDArray[Any]) -> bytes:
    """Write an array as JSON: float32 in its shortest form, NaN and infinities as null."""
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)


def load(text: str) -> Float32Array:
    """Read such a text again; null becomes NaN."""
    return np.array(orjson.loads(text), dtype=np.float32)


def cut(text: str, start: int, stop: int) -> str:
    """Give values ``start`` up to ``stop`` of a JSON array of numbers, without the brackets."""
    return ",".join(text[1:-1].split(",")[start:stop])


def epochs_of(iterations: IntArray, iterations_per_epoch: int) -> IntArray:
    """Tell the epoch of each iteration; both are counted from 1."""
    return (iterations - 1) // iterations_per_epoch + 1
