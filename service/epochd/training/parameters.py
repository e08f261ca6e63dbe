"""All parameters of a model as one flat tensor, and copies of a model's weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

ALIGNMENT = 16
"""Each parameter begins at a multiple of 16 floats (64 bytes), where torch's own allocations begin too."""


class FlatParameters:
    """Makes every parameter of ``model`` a view of ``values``, and its gradient a view of ``gradient``.

    Clearing, measuring, clipping and applying the gradient are then single operations whatever the number of
    layers. The gaps between parameters stay zero. The model must already be on its device.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = list(model.parameters())
        sizes = [-(-parameter.numel() // ALIGNMENT) * ALIGNMENT for parameter in parameters]
        like = parameters[0].detach()
        self.values = like.new_zeros(sum(sizes))
        self.gradient = like.new_zeros(sum(sizes))
        for parameter, value, gradient in zip(
            parameters, torch.split(self.values, sizes), torch.split(self.gradient, sizes), strict=True
        ):
            view = value[: parameter.numel()].view_as(parameter)
            view.copy_(parameter.detach())
            parameter.data = view
            parameter.grad = gradient[: parameter.numel()].view_as(parameter)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of a model's weights, buffers (batch-norm statistics) included, on its device."""

    values: Tensor
    buffers: list[Tensor]

    @classmethod
    def of(cls, flat: FlatParameters, model: nn.Module) -> "Snapshot":
        """Copy the weights as they are now."""
        return cls(flat.values.clone(), [buffer.clone() for buffer in model.buffers()])

    def load(self, flat: FlatParameters, model: nn.Module) -> None:
        """Put the copy back."""
        with torch.no_grad():
            flat.values.copy_(self.values)
            for buffer, kept in zip(model.buffers(), self.buffers, strict=True):
                buffer.copy_(kept)
