"""What an epoch adds up while it is trained, so that it can be left and taken up again anywhere."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from epochd.training.data import Chunk
from epochd.training.exact_sum import ExactSum, Float32Array
from epochd.training.metrics import Metric

RANGE_TO_DEVIATION: Final = 1.128
"""The mean moving range of two to the standard deviation, for a normal distribution: 2 / sqrt(pi)."""


class EpochSums:
    """The train loss, its noise between mini-batches, and the train metric of an epoch in progress.

    ``started`` is the training's elapsed time in seconds when the epoch began. ``outputs`` are those of the
    chunk in progress, mini-batch by mini-batch; ``mini_batches`` counts those of the chunks before it.
    """

    def __init__(self, metric: Metric, started: float) -> None:
        self.started = started
        self.outputs: list[Tensor] = []
        self.mini_batches = 0
        self._loss = ExactSum()
        self._jumps = ExactSum()
        self._last_loss: float | None = None
        self._losses = 0
        self._metric = metric

    def add(self, losses: Float32Array, samples: list[int]) -> None:
        """Take in a block of iterations: their losses, all finite, and their numbers of samples."""
        self._loss.add(losses, np.array(samples, dtype=np.int64))
        self._add_jumps(losses)

    def _add_jumps(self, losses: Float32Array) -> None:
        before = losses[:0] if self._last_loss is None else np.array([self._last_loss], dtype=np.float32)
        jumps = np.abs(np.diff(losses, prepend=before))
        if len(jumps):
            self._jumps.add(jumps, np.ones(len(jumps), dtype=np.int64))
        self._last_loss = float(losses[-1])
        self._losses += len(losses)

    def close_chunk(self, chunk: Chunk) -> None:
        """Take in the outputs of the chunk in progress, which is trained to its end."""
        self._metric.add(torch.cat(self.outputs), chunk.y)
        self.mini_batches += len(chunk.mini_batches)
        self.outputs = []

    def values(self, samples: int) -> tuple[float, float]:
        """The mean loss over the epoch's ``samples``, and the metric."""
        return self._loss.mean(samples), self._metric.value()

    def mini_batch_noise(self) -> float | None:
        """The standard deviation of the losses of mini-batches, None for fewer than two.

        By the mean of the jumps from one to the next, the moving range of control charts (Montgomery, Introduction to
        Statistical Quality Control, 2009, section 6.4): what the loss falls by within the epoch hardly adds to it.
        """
        return self._jumps.mean(self._losses - 1) / RANGE_TO_DEVIATION if self._losses > 1 else None

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from; tensors are on the device, and some are still in use."""
        return {
            "started": self.started,
            # One tensor, not one a mini-batch: gathered again with those to come, they are the same numbers.
            "outputs": torch.cat(self.outputs) if self.outputs else None,
            "mini_batches": self.mini_batches,
            "loss": self._loss.state_dict(),
            "jumps": {"total": self._jumps.state_dict(), "last": self._last_loss, "losses": self._losses},
            "metric": self._metric.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what ``state_dict`` gave, on ``device``."""
        self.started = state["started"]
        outputs = state["outputs"]
        self.outputs = [] if outputs is None else [outputs.to(device, copy=True)]
        self.mini_batches = state["mini_batches"]
        self._loss.load_state_dict(state["loss"])
        self._load_jumps(state.get("jumps"))
        self._metric.load_state_dict(state["metric"])

    def _load_jumps(self, state: dict[str, Any] | None) -> None:
        if state is not None:  # earlier versions knew of none: the noise is then that of the iterations since
            self._jumps.load_state_dict(state["total"])
            self._last_loss, self._losses = state["last"], state["losses"]
