"""What an epoch adds up while it is trained, so that it can be left and taken up again anywhere."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from epochd.training.data import Chunk
from epochd.training.exact_sum import ExactSum, Float32Array
from epochd.training.metrics import Metric


class EpochSums:
    """The train loss and the train metric of an epoch in progress.

    ``started`` is the training's elapsed time in seconds when the epoch began. ``outputs`` are those of the
    chunk in progress, mini-batch by mini-batch; ``mini_batches`` counts those of the chunks before it.
    """

    def __init__(self, metric: Metric, started: float) -> None:
        self.started = started
        self.outputs: list[Tensor] = []
        self.mini_batches = 0
        self._loss = ExactSum()
        self._metric = metric

    def add(self, losses: Float32Array, samples: list[int]) -> None:
        """Take in a block of iterations: their losses, all finite, and their numbers of samples."""
        self._loss.add(losses, np.array(samples, dtype=np.int64))

    def close_chunk(self, chunk: Chunk) -> None:
        """Take in the outputs of the chunk in progress, which is trained to its end."""
        self._metric.add(torch.cat(self.outputs), chunk.y)
        self.mini_batches += len(chunk.mini_batches)
        self.outputs = []

    def values(self, samples: int) -> tuple[float, float]:
        """The mean loss over the epoch's ``samples``, and the metric."""
        return self._loss.mean(samples), self._metric.value()

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` continues from; tensors are on the device, and some are still in use."""
        return {
            "started": self.started,
            # One tensor, not one a mini-batch: gathered again with those to come, they are the same numbers.
            "outputs": torch.cat(self.outputs) if self.outputs else None,
            "mini_batches": self.mini_batches,
            "loss": self._loss.state_dict(),
            "metric": self._metric.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from what ``state_dict`` gave, on ``device``."""
        self.started = state["started"]
        outputs = state["outputs"]
        self.outputs = [] if outputs is None else [outputs.to(device, copy=True)]
        self.mini_batches = state["mini_batches"]
        self._loss.load_state_dict(state["loss"])
        self._metric.load_state_dict(state["metric"])
