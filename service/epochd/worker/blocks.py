"""Gathers iterations into the store's aligned blocks, and into its reduced levels."""

import numpy as np
import numpy.typing as npt

from epochd.contract.metrics import ITERATION_FIELDS
from epochd.store.blocks import Block
from epochd.store.levels import LevelBuilder, LevelRow
from epochd.store.tables import BLOCK_ITERATIONS
from epochd.training.events import IterationsCompleted


class BlockBuffer:
    """Blocks not yet committed in their newest form; the last one is written again as it grows.

    With them come the rows of reduced levels that they complete, which never change again.

    Iterations are gathered from the one that follows ``after`` on: what a resumed attempt did not train itself is
    not in its blocks.
    """

    def __init__(self, after: int = 0) -> None:
        self._blocks: dict[int, npt.NDArray[np.float32]] = {}
        self._levels = LevelBuilder(after)
        self._after = self._iteration = after

    def add(self, *events: IterationsCompleted) -> None:
        """Take runs of consecutive iterations, which may span several blocks.

        Many at once cost little more than one.
        """
        columns = np.stack([np.concatenate([getattr(e, name) for e in events]) for name in ITERATION_FIELDS])
        following = self._iteration + 1
        for event in events:
            assert event.first_iteration == following, "iterations come without a gap"
            following += len(event.train_loss)
        self._levels.add(columns)
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

    def unwritten_levels(self) -> list[LevelRow]:
        """List the rows of reduced levels that are full since the last commit."""
        return list(self._levels.rows)

    def written(self) -> None:
        """Forget what is committed, but for the block that still grows."""
        self._levels.rows.clear()
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
