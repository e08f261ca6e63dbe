"""One iteration: forward, loss, backward, clipping and the optimizer's update, without a synchronisation."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from epochd.training.backpropagation import backpropagation
from epochd.training.checks import check_outputs
from epochd.training.device import is_out_of_memory
from epochd.training.losses import Loss
from epochd.training.micro_batches import MicroBatches
from epochd.training.optimizers import Optimizer
from epochd.training.parameters import FlatParameters


def make_forward(model: nn.Module, device: torch.device, precision: str) -> Callable[[Tensor], Tensor]:
    """The forward pass in ``precision``: bf16 by autocast, its outputs lifted to float32 for the loss."""
    if precision == "fp32":
        return model  # a disabled autocast would cost more than the smallest model's layers

    def forward(x: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            outputs: Tensor = model(x)
        return outputs.float()

    return forward


class Autograd:
    """Calculates the loss of any model and its gradient by the parameters, for one mini-batch at a time."""

    def __init__(self, forward: Callable[[Tensor], Tensor], loss: Loss, flat: FlatParameters) -> None:
        self._forward = forward
        self._loss = loss
        self._gradient = flat.gradient

    def __call__(self, x: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The outputs for ``x``; writes the mean loss into ``loss_slot`` and the gradient into its tensor."""
        self._gradient.zero_()
        outputs = self._forward(x)
        check_outputs(outputs, y)
        loss = self._loss(outputs, y)
        loss.backward()  # type: ignore[no-untyped-call]
        loss_slot.copy_(loss.detach())
        return outputs.detach()

    def forget(self) -> None:
        """Do nothing: what autograd keeps goes with its graph."""


class WeightUpdate:
    """Changes the weights once for each mini-batch it is called with.

    The gradient is written out for the models that ``backpropagation`` knows, and autograd's for all others:
    both are the same within rounding. A mini-batch that does not fit into memory is split into ``micro_batches``.
    """

    def __init__(  # noqa: PLR0913 - what is changed, by what, and on what
        self,
        forward: nn.Module | Callable[[Tensor], Tensor],
        loss: Loss,
        flat: FlatParameters,
        optimizer: Optimizer,
        gradient_clip_norm: float | None,
        *,
        model: nn.Module,
    ) -> None:
        written_out = backpropagation(forward, loss) if isinstance(forward, nn.Module) else None
        self.differentiate = written_out or Autograd(forward, loss, flat)
        self.micro_batches = MicroBatches(self.differentiate, model, flat.gradient, device=flat.values.device)
        self._loss_and_gradient = self.micro_batches.current
        self._gradient = flat.gradient
        self._optimizer = optimizer
        self._clip_norm = gradient_clip_norm

    def __call__(
        self, x: Tensor, y: Tensor, learning_rate: float, loss_slot: Tensor, norm_slot: Tensor
    ) -> Tensor:
        """Train on one mini-batch; gives its outputs.

        Writes the mean loss into ``loss_slot`` and the gradient's L2 norm before clipping into ``norm_slot``. Raises
        OutOfMemoryError, with the weights as they were, when not even the smallest micro-batch fits.
        """
        try:
            outputs: Tensor | None = self._loss_and_gradient(x, y, loss_slot)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            outputs = None
        if outputs is None:  # out here, where the error no longer holds what was computed until then
            outputs = self._split(x, y, loss_slot)
        torch.linalg.vector_norm(self._gradient, out=norm_slot)
        if self._clip_norm is not None:
            # As torch.nn.utils.clip_grad_norm_: no question on the host whether the norm is above the limit.
            self._gradient.mul_((self._clip_norm / (norm_slot + 1e-6)).clamp(max=1.0))
        self._optimizer.update(learning_rate)
        return outputs

    def split(self, size: int | None) -> None:
        """Work through at most so many samples together from now on; None: whole mini-batches."""
        self.micro_batches.size = size
        self._loss_and_gradient = self.micro_batches.current

    def _split(self, x: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The same again, in ever smaller micro-batches until they fit."""
        while True:
            self.micro_batches.reduce(len(x))
            self._loss_and_gradient = self.micro_batches.current
            try:
                return self._loss_and_gradient(x, y, loss_slot)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
