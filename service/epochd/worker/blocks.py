"""Gathers iterations into the store's aligned blocks."""

import numpy as np
import numpy.typing as npt

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.store.blocks import Block
from epochd.store.tables import BLOCK_ITERATIONS
from epochd.training.events import IterationsCompleted


class BlockBuffer:
    """Blocks not yet committed in their newest form; the last one is written again as it grows.

    Iterations are gathered from the one that follows ``after`` on: what a resumed attempt did not train itself is
    not in its blocks.
    """

    def __init__(self, after: int = 0) -> None:
        self._blocks: dict[int, npt.NDArray[np.float32]] = {}
        self._after = self._iteration = after

    def add(self, event: IterationsCompleted) -> None:
        """Take a run of consecutive iterations, which may span several blocks."""
        columns = np.stack([getattr(event, name) for name in ITERATION_FIELDS])
        assert event.first_iteration == self._iteration + 1, "iterations come without a gap"
        done = 0
        while done < columns.shape[1]:
            block, start = divmod(self._iteration, BLOCK_ITERATIONS)
            taken = min(BLOCK_ITERATIONS - start, columns.shape[1] - done)
            self._array(block)[:, start : start + taken] = columns[:, done : done + taken]
            self._iteration += taken
            done += taken

    def unwritten(self) -> list[Block]:
        """List the blocks that have changed since the last commit, each from its first iteration on."""
        return [self._block(number, array) for number, array in sorted(self._blocks.items())]

    def written(self) -> None:
        """Forget what is committed, but for the block that still grows."""
        growing = self._iteration // BLOCK_ITERATIONS
        self._blocks = {number: array for number, array in self._blocks.items() if number == growing}

    def _array(self, block: int) -> npt.NDArray[np.float32]:
        if block not in self._blocks:
            shape = (len(ITERATION_FIELDS), BLOCK_ITERATIONS)
            self._blocks[block] = np.full(shape, np.nan, dtype=np.float32)
        return self._blocks[block]

    def _block(self, number: int, array: npt.NDArray[np.float32]) -> Block:
        before = number * BLOCK_ITERATIONS
        start = max(self._after - before, 0)
        stop = min(self._iteration - before, BLOCK_ITERATIONS)
        loss, learning_rate, norm, rate = array[:, start:stop]
        return Block(number, loss, learning_rate, norm, rate, first_iteration=before + start + 1)
