"""The loss of a model and its gradient, written out in the kernels that autograd would call.

On the CPU a small model spends more time in autograd's bookkeeping than in arithmetic. Here each layer calls the
same kernels in the same order and writes its gradient where the optimizer reads it. Activations are changed in
place, and ReLU comes after a maximum pooling instead of before it, on a quarter of the elements: the largest of
several numbers is the same whether negative ones are cut off before or after.

Nothing is carried from one iteration to the next.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from epochd.training.layer_gradients import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
)
from epochd.training.loss_gradients import LossGradient, loss_gradient
from epochd.training.losses import Loss


class Backpropagation:
    """Calculates the loss and every parameter's gradient, for one mini-batch at a time."""

    def __init__(self, layers: Sequence[Layer], loss_gradient: LossGradient) -> None:
        self._loss_gradient = loss_gradient
        self._layers = layers
        self._forward = [layer.forward for layer in layers]
        first = [layer.has_parameters for layer in layers].index(True)
        # Nobody asks for the gradient by the mini-batch itself.
        self._backward = [
            partial(layer.backward, by_inputs=number > first)
            for number, layer in enumerate(layers)
            if number >= first
        ][::-1]

    def __call__(self, x: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        """The outputs for ``x``; writes the mean loss into ``loss_slot`` and the gradients into theirs."""
        outputs = x
        for forward in self._forward:
            outputs = forward(outputs)
        gradient = self._loss_gradient(outputs, y, loss_slot)
        for backward in self._backward:
            gradient = backward(gradient)
        return outputs

    def forget(self) -> None:
        """Give up what a mini-batch that did not come to its end has left behind."""
        for layer in self._layers:
            layer.forget()


def backpropagation(model: nn.Module, loss: Loss) -> Backpropagation | None:
    """What is written out for ``model`` in training mode; None when that is not all of it, or not on the CPU.

    Every parameter must have its gradient's tensor already, and keep both for good.
    """
    gradient = loss_gradient(loss)
    if gradient is None or not isinstance(model, nn.Sequential) or not _is_ready(model):
        return None
    layers = [_layer(module) for module in _pooled_first(list(model))]
    known = [layer for layer in layers if layer is not None]
    if len(known) < len(layers) or not _spares_inputs(known):
        return None
    return Backpropagation(known, gradient)


def _is_ready(model: nn.Sequential) -> bool:
    parameters = list(model.parameters())
    return bool(parameters) and all(
        parameter.device.type == "cpu" and parameter.dtype == torch.float32 and parameter.grad is not None
        for parameter in parameters
    )


def _pooled_first(modules: list[nn.Module]) -> list[nn.Module]:
    """The same modules, each ReLU before a maximum pooling moved behind it."""
    ordered = list(modules)
    for number, (module, following) in enumerate(pairwise(modules)):
        if type(module) is nn.ReLU and type(following) is nn.MaxPool2d:
            ordered[number : number + 2] = [following, module]
    return ordered


def _spares_inputs(layers: list[Layer]) -> bool:
    """Whether the mini-batch stays as it is: the first layer that is more than a view makes a new tensor."""
    first = next((layer for layer in layers if not isinstance(layer, Flatten)), None)
    return not isinstance(first, Relu | Dropout)


_LAYERS: dict[type[nn.Module], Callable[[Any], Layer]] = {
    nn.Linear: Linear,
    nn.Conv2d: Conv2d,
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
    nn.ReLU: lambda _: Relu(),
    nn.Dropout: Dropout,
    nn.MaxPool2d: MaxPool2d,
    nn.Flatten: lambda _: Flatten(),
}


def _layer(module: nn.Module) -> Layer | None:
    make = _LAYERS.get(type(module))
    return None if make is None or _is_unusual(module) else make(module)


def _is_unusual(module: nn.Module) -> bool:
    """Whether a module of a known type does what its layer here does not."""
    match module:
        case nn.Linear():
            return module.bias is None
        case nn.Conv2d():
            return module.bias is None or module.padding_mode != "zeros" or isinstance(module.padding, str)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return module.bias is None or not module.track_running_stats or module.momentum is None
        case nn.Dropout():
            return not 0 < module.p < 1
        case _:
            return getattr(module, "return_indices", False) or getattr(module, "start_dim", 1) != 1
