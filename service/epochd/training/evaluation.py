"""Loss and metric of a model over a whole split, without touching its training."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from epochd.training.data import DeviceSamples, MiniBatch
from epochd.training.losses import Loss
from epochd.training.metrics import Metric

ACTIVATION_ELEMENTS = 2**20
"""Samples evaluated together are so many that the widest activation has about this many elements."""


class Evaluation:
    """Evaluates ``model`` on ``samples``: in order, in float32, in evaluation mode, drawing no randomness.

    The same weights always give the same values.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: DeviceSamples,
        loss: Loss,
        make_metric: Callable[[], Metric],
        *,
        batch_size: int,
    ) -> None:
        self._model = model
        self._samples = samples
        self._loss = loss
        self._make_metric = make_metric
        self._batch_size = batch_size

    def run(self) -> tuple[float, float]:
        """The mean loss over the samples, and their metric."""
        metric = self._make_metric()
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                loss = self._summed_loss(metric).item() / len(self._samples)
        finally:
            self._model.train(training)
        return loss, metric.value()

    def _summed_loss(self, metric: Metric) -> Tensor:
        # One float64 sum on the device: fetching each mini-batch's loss would be a synchronisation each.
        total = torch.zeros((), dtype=torch.float64, device=self._samples.device)
        for x, y in self._mini_batches():
            outputs = self._model(x)
            total += self._loss(outputs, y).double() * len(y)
            metric.add(outputs, y)
        return total

    def _mini_batches(self) -> Iterator[MiniBatch]:
        for start in range(0, len(self._samples), self._batch_size):
            yield self._samples.slice(start, start + self._batch_size)
