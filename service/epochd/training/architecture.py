"""Models as lists of layer descriptions. No torch: jobs are checked by them before anything is queued.

A layer is a dict of ``type``, a class name in ``torch.nn``, and that class's arguments, so that anyone with
torch alone rebuilds the model: ``nn.Sequential(*[getattr(nn, layer.pop("type"))(**layer) for layer in
layers])``.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from epochd.training.config import ModelConfig

Layer = dict[str, Any]
IMAGE_DIMENSIONS = 3
LAYER_TYPES = frozenset(
    {"Linear", "ReLU", "Dropout", "BatchNorm1d", "BatchNorm2d", "Conv2d", "MaxPool2d", "Flatten"}
)


def layers(config: ModelConfig) -> list[Layer]:
    """Describe the layers of a model, first to last.

    ``linear`` is softmax or linear regression. ``mlp`` has, for each hidden size, Linear, BatchNorm1d (if
    asked for), ReLU and Dropout (if above 0). ``cnn`` has, for each channel count, a convolution of 3 by 3,
    BatchNorm2d (if asked for), ReLU and maximum pooling of 2 by 2, then one hidden layer. Raises ValueError
    when the input does not suit the model.
    """
    if config.name == "cnn":
        return _cnn(config)
    features = math.prod(config.input_shape)
    flatten = [] if len(config.input_shape) == 1 else [{"type": "Flatten"}]
    hidden = config.hidden_sizes if config.name == "mlp" else ()
    return [*flatten, *_perceptron(config, features, hidden, batch_norm=config.batch_norm)]


def _perceptron(
    config: ModelConfig, features: int, hidden: Sequence[int], *, batch_norm: bool
) -> list[Layer]:
    described: list[Layer] = []
    for inputs, outputs in pairwise((features, *hidden)):
        described.append(_linear(inputs, outputs))
        if batch_norm:
            described.append({"type": "BatchNorm1d", "num_features": outputs})
        described.append({"type": "ReLU"})
        if config.dropout > 0:
            described.append({"type": "Dropout", "p": config.dropout})
    return [*described, _linear((features, *hidden)[-1], config.outputs)]


def _linear(inputs: int, outputs: int) -> Layer:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def _cnn(config: ModelConfig) -> list[Layer]:
    if len(config.input_shape) != IMAGE_DIMENSIONS:
        raise ValueError(
            "The model cnn takes images (channels, height, width), "
            f"not samples of shape {config.input_shape}. Take mlp or linear for this data set."
        )
    channels, height, width = config.input_shape
    scale = 2 ** len(config.channels)
    if min(height, width) < scale:
        deepest = int(math.log2(min(height, width)))
        raise ValueError(
            f"{len(config.channels)} poolings shrink an image of {height} by {width} pixels below 1 pixel. "
            f"Give at most {deepest} channel counts."
        )
    described = [
        layer
        for inputs, outputs in pairwise((channels, *config.channels))
        for layer in _convolution(inputs, outputs, batch_norm=config.batch_norm)
    ]
    features = config.channels[-1] * (height // scale) * (width // scale)
    head = _perceptron(config, features, (config.hidden_size,), batch_norm=False)
    return [*described, {"type": "Flatten"}, *head]


def _convolution(inputs: int, outputs: int, *, batch_norm: bool) -> list[Layer]:
    size = {"kernel_size": 3, "padding": 1}
    convolution = {"type": "Conv2d", "in_channels": inputs, "out_channels": outputs, **size}
    normalisation = [{"type": "BatchNorm2d", "num_features": outputs}] if batch_norm else []
    return [convolution, *normalisation, {"type": "ReLU"}, {"type": "MaxPool2d", "kernel_size": 2}]


def parameter_count(described: Sequence[Mapping[str, Any]]) -> int:
    """The number of trained parameters of a description."""
    return sum(_layer_parameters(layer) for layer in described)


def _layer_parameters(layer: Mapping[str, Any]) -> int:
    match layer["type"]:
        case "Linear":
            return int((layer["in_features"] + 1) * layer["out_features"])
        case "Conv2d":
            return int((layer["in_channels"] * layer["kernel_size"] ** 2 + 1) * layer["out_channels"])
        case "BatchNorm1d" | "BatchNorm2d":
            return 2 * int(layer["num_features"])
        case _:
            return 0
