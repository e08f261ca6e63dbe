"""Loss and metric of a model over a whole split, without touching its training."""

from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor, nn

from epochd.training import device as devices
from epochd.training.checks import check_outputs
from epochd.training.data import SplitOnDevice
from epochd.training.extra_metrics import ExtraMetrics
from epochd.training.losses import Loss
from epochd.training.metrics import Metric

ACTIVATION_ELEMENTS = 2**20
"""Samples evaluated together are so many that the widest activation has about this many elements."""


class Evaluation:
    """Evaluates ``model`` on ``samples``: in order, in float32, in evaluation mode, drawing no randomness.

    The same weights always give the same values. ``batch_size`` samples go together; when they do not fit into memory,
    it is halved until they do.
    """

    def __init__(  # noqa: PLR0913 - what is evaluated on what, and how
        self,
        model: nn.Module,
        samples: SplitOnDevice,
        loss: Loss,
        make_metric: Callable[[], Metric],
        *,
        batch_size: int,
        make_extra: Callable[[], ExtraMetrics] | None = None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._loss = loss
        self._make_metric = make_metric
        self.batch_size = batch_size
        self._make_extra = make_extra

    def run(self) -> tuple[float, float, dict[str, float]]:
        """The mean loss over the samples, their metric, and the extra ones by name."""
        while True:
            try:
                return self._run()
            except (RuntimeError, MemoryError) as error:
                if self.batch_size == 1 or not devices.is_out_of_memory(error):
                    raise
            self.batch_size = -(-self.batch_size // 2)
            devices.give_memory_back(self._samples.device)

    def _run(self) -> tuple[float, float, dict[str, float]]:
        metric = self._make_metric()
        extra = None if self._make_extra is None else self._make_extra()
        training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                loss = self._summed_loss(metric, extra).item() / len(self._samples)
        finally:
            self._model.train(training)
        return loss, metric.value(), {} if extra is None else extra.values()

    def _summed_loss(self, metric: Metric, extra: ExtraMetrics | None) -> Tensor:
        # One float64 sum on the device: fetching each mini-batch's loss would be a synchronisation each.
        total = torch.zeros((), dtype=torch.float64, device=self._samples.device)
        with closing(self._samples.in_order(self.batch_size)) as mini_batches:
            for x, y in mini_batches:
                outputs = self._model(x)
                check_outputs(outputs, y)
                total += self._loss(outputs, y).double() * len(y)
                metric.add(outputs, y)
                if extra is not None:
                    extra.add(outputs, y)
        return total
