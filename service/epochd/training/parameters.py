"""All parameters of a model as one flat tensor, and copies of a model's weights."""

from dataclasses import dataclass
from typing import Any

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

    @classmethod
    def from_dict(cls, state: dict[str, Any], device: torch.device) -> "Snapshot":
        """Make a copy again, on ``device``, from what ``as_dict`` gave."""
        values, buffers = state["values"], state["buffers"]
        return cls(values.to(device, copy=True), [buffer.to(device, copy=True) for buffer in buffers])

    def as_dict(self) -> dict[str, Any]:
        """The tensors themselves."""
        return {"values": self.values, "buffers": self.buffers}

    def load(self, flat: FlatParameters, model: nn.Module) -> None:
        """Put the copy back. Raises ValueError when it is one of another model."""
        mine, given = [flat.values, *model.buffers()], [self.values, *self.buffers]
        if [tensor.shape for tensor in mine] != [tensor.shape for tensor in given]:
            raise ValueError("The weights are those of a model with other layers.")
        with torch.no_grad():
            for tensor, kept in zip(mine, given, strict=True):
                tensor.copy_(kept)
