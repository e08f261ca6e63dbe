"""The losses with their gradients, by the kernels that autograd would call."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from epochd.training.losses import HUBER_DELTA, LOSSES, Loss, WeightedCrossEntropy

MEAN = 1
"""How torch's kernels are told to average over the mini-batch (``at::Reduction::Mean``)."""
IGNORED_CLASS = -100
"""The class number that cross-entropy leaves out by default; no sample has it."""

_aten = torch.ops.aten


class LossGradient(ABC):
    """One loss, averaged over a mini-batch."""

    def __init__(self) -> None:
        self._one = torch.ones(())

    @abstractmethod
    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient by ``outputs``, a new tensor; writes the loss into the scalar ``loss_slot``."""


class CrossEntropy(LossGradient):
    """Cross-entropy of logits (n, classes) and class numbers (n,)."""

    def __init__(self) -> None:
        super().__init__()
        self._samples = torch.zeros(())

    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient: the probabilities, less 1 at the true class, divided by n."""
        log_probabilities = torch._log_softmax(outputs, 1, False)  # noqa: SLF001
        mean = (log_probabilities, y, None, MEAN, IGNORED_CLASS)
        _aten.nll_loss_forward.output(*mean, output=loss_slot, total_weight=self._samples)
        gradient = _aten.nll_loss_backward.default(self._one, *mean, self._samples)
        return torch._log_softmax_backward_data(gradient, log_probabilities, 1, outputs.dtype)  # noqa: SLF001


class Weighted(LossGradient):
    """Cross-entropy with class weights and smoothed labels, as ``losses`` defines it."""

    def __init__(self, loss: WeightedCrossEntropy) -> None:
        super().__init__()
        self._weights, self._smoothing = loss.weights, loss.smoothing

    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient: the probabilities less the smoothed label, times the sample's weight, divided by n."""
        log_probabilities = torch._log_softmax(outputs, 1, False)  # noqa: SLF001
        labels = y.unsqueeze(1)
        weights = self._weights[labels] / -len(y)
        loss = log_probabilities.gather(1, labels).mul_(weights).sum().mul_(1 - self._smoothing)
        # So far the gradient by the logarithms of the probabilities.
        gradient = torch.zeros_like(outputs)
        if self._smoothing:
            smoothed = weights * (self._smoothing / outputs.shape[1])
            loss.add_((log_probabilities * smoothed).sum())
            gradient.add_(smoothed)
        gradient.scatter_add_(1, labels, weights * (1 - self._smoothing))
        loss_slot.copy_(loss)
        return torch._log_softmax_backward_data(gradient, log_probabilities, 1, outputs.dtype)  # noqa: SLF001


class SquaredError(LossGradient):
    """The mean of (outputs - targets)²."""

    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient: twice the difference, divided by the number of elements."""
        loss_slot.copy_(_aten.mse_loss.default(outputs, y, MEAN))
        return _aten.mse_loss_backward.default(self._one, outputs, y, MEAN)  # type: ignore[no-any-return]


class Huber(LossGradient):
    """The mean of half the squared difference up to HUBER_DELTA, linear beyond."""

    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient: the difference, at most HUBER_DELTA, divided by the number of elements."""
        how = (MEAN, HUBER_DELTA)
        loss_slot.copy_(_aten.huber_loss.default(outputs, y, *how))
        return _aten.huber_loss_backward.default(self._one, outputs, y, *how)  # type: ignore[no-any-return]


class AbsoluteError(LossGradient):
    """The mean of abs(outputs - targets)."""

    def __call__(self, outputs: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The gradient: the sign of the difference, divided by the number of elements."""
        difference = outputs - y
        loss_slot.copy_(difference.abs().mean())
        return difference.sign_().div_(difference.numel())


_GRADIENTS: dict[Loss, type[LossGradient]] = {
    LOSSES["cross_entropy"]: CrossEntropy,
    LOSSES["mse"]: SquaredError,
    LOSSES["mae"]: AbsoluteError,
    LOSSES["huber"]: Huber,
}


def loss_gradient(loss: Loss) -> LossGradient | None:
    """The written-out gradient of ``loss``; None when there is none."""
    if isinstance(loss, WeightedCrossEntropy):
        return Weighted(loss)
    gradient = _GRADIENTS.get(loss)
    return None if gradient is None else gradient()
