"""What a model costs to run."""

import math
from typing import Any

import torch
from torch import Tensor, nn

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules that multiply each of their weights once for each position of their outputs."""


def cost(model: nn.Module, sample: Tensor) -> tuple[int, int]:
    """Multiply-adds of the forward pass and elements of the widest activation for one ``sample``.

    ``sample`` has the shape (1, *input_shape). Of a composite model its linear layers and convolutions are counted,
    and the outputs of its modules.
    """
    meter = _Meter(sample)
    handles = [module.register_forward_hook(meter) for module in model.modules()]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(sample)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return meter.multiply_adds, meter.widest


def parts_to_share(model: nn.Module) -> int:
    """Into how many parts the work of a mini-batch falls, each of which several threads would share anew.

    A sequence of few layers is one; a deep model has one for each two of its linear layers and convolutions, and was
    slower on two threads while these were small.
    """
    if isinstance(model, nn.Sequential):
        return 1
    return max(1, sum(isinstance(module, WEIGHTED) for module in model.modules()) // 2)


class _Meter:
    """A forward hook that adds up."""

    def __init__(self, sample: Tensor) -> None:
        self.multiply_adds, self.widest = 0, sample.numel()

    def __call__(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        del inputs
        if not isinstance(outputs, Tensor):
            return
        self.widest = max(self.widest, outputs.numel())
        if isinstance(module, WEIGHTED):
            positions = math.prod(outputs.shape) // module.weight.shape[0]
            self.multiply_adds += module.weight.numel() * positions
