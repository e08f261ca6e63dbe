"""Models built from their description (``architecture.py``), and what one costs to run."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from epochd.training.architecture import LAYER_TYPES, layers, parameter_count

__all__ = ["build", "cost", "layers", "parameter_count"]


def build(described: Sequence[Mapping[str, Any]]) -> nn.Sequential:
    """Make the model of a description, with torch's default initialisation from the global generator.

    Raises ValueError for a layer type that no model here has.
    """
    modules: list[nn.Module] = []
    for layer in described:
        arguments = {name: value for name, value in layer.items() if name != "type"}
        if layer["type"] not in LAYER_TYPES:
            raise ValueError(
                f"{layer['type']!r} is no layer of these models; they have {sorted(LAYER_TYPES)}."
            )
        modules.append(getattr(nn, layer["type"])(**arguments))
    return nn.Sequential(*modules)


def cost(model: nn.Sequential, sample: Tensor) -> tuple[int, int]:
    """Multiply-adds of the forward pass and elements of the widest activation for one ``sample``.

    ``sample`` has the shape (1, *input_shape).
    """
    multiply_adds, widest, value = 0, sample.numel(), sample
    training = model.training
    model.eval()
    with torch.no_grad():
        for module in model:
            value = module(value)
            weight = getattr(module, "weight", None)
            if weight is not None and weight.dim() > 1:
                multiply_adds += weight.numel() * value[0, 0].numel()
            widest = max(widest, value.numel())
    model.train(training)
    return multiply_adds, widest
