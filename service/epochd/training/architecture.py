"""Models as lists of layer descriptions. No torch: jobs are checked by them before anything is queued.

A layer is a dict of ``type`` and arguments. ``linear``, ``mlp`` and ``cnn`` consist of classes of ``torch.nn``, so
that anyone with torch alone rebuilds them: ``nn.Sequential(*[getattr(nn, layer.pop("type"))(**layer) for layer in
layers])``. Every other model is a single entry, a class of ``epochd.training.models``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from epochd.training.config import DataShape, ModelConfig

Layer = dict[str, Any]
IMAGE_DIMENSIONS = 3
LAYER_TYPES = frozenset(
    {"Linear", "ReLU", "Dropout", "BatchNorm1d", "BatchNorm2d", "Conv2d", "MaxPool2d", "Flatten"}
)
RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
SHALLOWEST_BOTTLENECK = 50
RESNET_REDUCTION = 8
LARGEST_SMALL_IMAGE = 64
"""Pixels: up to here the first layer leaves an image its size; beyond, it makes it four times smaller."""
OPERATOR_MODEL: Final = "OperatorModel"
"""The type of the one entry that describes a model of the operator's: ``name``, ``data`` and ``parameters``."""


def layers(config: ModelConfig) -> list[Layer]:
    """Describe the layers of a model, first to last.

    Raises ValueError when the data does not suit the model, TypeError for a parameter that it does not have.
    """
    describe = BUILT_IN.get(config.name)
    if describe is None:
        return [_operator_model(config)]
    return describe(config.data, **config.parameters)


def _operator_model(config: ModelConfig) -> Layer:
    data = config.data
    shape = {
        "kind": data.kind,
        "input_shape": list(data.input_shape),
        "outputs": data.outputs,
        "categories": list(data.categories),
        "vocabulary": data.vocabulary,
    }
    return {"type": OPERATOR_MODEL, "name": config.name, "data": shape, "parameters": dict(config.parameters)}


def _linear_model(data: DataShape) -> list[Layer]:
    """Softmax or linear regression."""
    return [*_flattened(data), _linear(math.prod(data.input_shape), data.outputs)]


def _mlp(
    data: DataShape,
    *,
    hidden_sizes: Sequence[int] = (128,),
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[Layer]:
    """For each hidden size Linear, BatchNorm1d (if asked for), ReLU and Dropout (if above 0)."""
    widths = (math.prod(data.input_shape), *hidden_sizes)
    head = _perceptron(widths, data.outputs, dropout=dropout, batch_norm=batch_norm)
    return [*_flattened(data), *head]


def _flattened(data: DataShape) -> list[Layer]:
    return [] if len(data.input_shape) == 1 else [{"type": "Flatten"}]


def _perceptron(widths: Sequence[int], outputs: int, *, dropout: float, batch_norm: bool) -> list[Layer]:
    described: list[Layer] = []
    for before, after in pairwise(widths):
        described.append(_linear(before, after))
        if batch_norm:
            described.append({"type": "BatchNorm1d", "num_features": after})
        described.append({"type": "ReLU"})
        if dropout > 0:
            described.append({"type": "Dropout", "p": dropout})
    return [*described, _linear(widths[-1], outputs)]


def _linear(inputs: int, outputs: int) -> Layer:
    return {"type": "Linear", "in_features": inputs, "out_features": outputs}


def _cnn(
    data: DataShape,
    *,
    channels: Sequence[int] = (16, 32),
    hidden_size: int = 64,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[Layer]:
    """For each channel count a 3×3 convolution, BatchNorm2d (if asked for), ReLU and 2×2 maximum pooling.

    One hidden layer follows.
    """
    image = _image(data, "cnn")
    scale = 2 ** len(channels)
    if min(image[1:]) < scale:
        deepest = int(math.log2(min(image[1:])))
        raise ValueError(
            f"{len(channels)} poolings shrink an image of {image[1]} by {image[2]} pixels below 1 pixel. "
            f"Give at most {deepest} channel counts."
        )
    described = [
        layer
        for before, after in pairwise((image[0], *channels))
        for layer in _convolution(before, after, batch_norm=batch_norm)
    ]
    features = channels[-1] * (image[1] // scale) * (image[2] // scale)
    head = _perceptron((features, hidden_size), data.outputs, dropout=dropout, batch_norm=False)
    return [*described, {"type": "Flatten"}, *head]


def _image(data: DataShape, model: str) -> tuple[int, int, int]:
    if len(data.input_shape) != IMAGE_DIMENSIONS:
        raise ValueError(
            f"The model {model} takes images (channels, height, width), "
            f"not samples of shape {data.input_shape}. Take mlp or linear for this data set."
        )
    channels, height, width = data.input_shape
    return channels, height, width


def _convolution(inputs: int, outputs: int, *, batch_norm: bool) -> list[Layer]:
    size = {"kernel_size": 3, "padding": 1}
    convolution = {"type": "Conv2d", "in_channels": inputs, "out_channels": outputs, **size}
    normalisation = [{"type": "BatchNorm2d", "num_features": outputs}] if batch_norm else []
    return [convolution, *normalisation, {"type": "ReLU"}, {"type": "MaxPool2d", "kernel_size": 2}]


def _resnet(data: DataShape, *, depth: int = 18, width: int = 64, dropout: float = 0.0) -> list[Layer]:
    """Blocks as in table 1 of the paper (He et al., 2016)."""
    channels, *size = _image(data, "resnet")
    return [
        {
            "type": "ResNet",
            "channels": channels,
            "blocks": list(RESNET_BLOCKS[depth]),
            "bottleneck": depth >= SHALLOWEST_BOTTLENECK,
            "width": width,
            "large_stem": max(size) > LARGEST_SMALL_IMAGE,
            "dropout": dropout,
            "outputs": data.outputs,
        }
    ]


def _tabular_resnet(
    data: DataShape,
    *,
    blocks: int = 3,
    width: int = 128,
    hidden_factor: float = 2.0,
    dropout: float = 0.1,
) -> list[Layer]:
    return [
        {
            "type": "TabularResNet",
            "features": _length(data, "tabular_resnet", "tables"),
            "blocks": blocks,
            "width": width,
            "hidden": max(1, round(hidden_factor * width)),
            "dropout": dropout,
            "outputs": data.outputs,
        }
    ]


def _ft_transformer(
    data: DataShape, *, blocks: int = 3, width: int = 64, heads: int = 8, dropout: float = 0.1
) -> list[Layer]:
    _check_heads(width, heads)
    return [
        {
            "type": "FtTransformer",
            "numbers": _length(data, "ft_transformer", "tables") - len(data.categories),
            "categories": list(data.categories),
            "blocks": blocks,
            "width": width,
            "heads": heads,
            "dropout": dropout,
            "outputs": data.outputs,
        }
    ]


def _text_classifier(  # noqa: PLR0913 - the model's parameters, by name
    data: DataShape,
    *,
    blocks: int = 2,
    width: int = 64,
    heads: int = 4,
    dropout: float = 0.1,
    vocabulary_size: int | None = None,
    sequence_length: int | None = None,
) -> list[Layer]:
    """The two sizes are those of the data already: they say how texts are encoded."""
    del vocabulary_size, sequence_length
    _check_heads(width, heads)
    return [
        {
            "type": "TextClassifier",
            "vocabulary": data.vocabulary,
            "sequence_length": _length(data, "text_classifier", "texts"),
            "blocks": blocks,
            "width": width,
            "heads": heads,
            "dropout": dropout,
            "outputs": data.outputs,
        }
    ]


def _length(data: DataShape, model: str, what: str) -> int:
    if len(data.input_shape) != 1:
        raise ValueError(f"The model {model} takes {what}, not samples of shape {data.input_shape}.")
    return data.input_shape[0]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"The width {width} is no multiple of the {heads} heads, which share it evenly.")


BUILT_IN: Final[dict[str, Callable[..., list[Layer]]]] = {
    "linear": _linear_model,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet": _resnet,
    "tabular_resnet": _tabular_resnet,
    "ft_transformer": _ft_transformer,
    "text_classifier": _text_classifier,
}
"""What describes each model that comes with epochd; any other name is an operator's."""


def needs_two_samples(config: ModelConfig) -> bool:
    """Whether batch normalisation leaves a mini-batch of one sample without any variance to normalise by."""
    match config.name:
        case "mlp":
            return bool(config.parameters.get("batch_norm", False))
        case "tabular_resnet":
            return True
        case "resnet":
            # Three stages halve the image: of up to 8 by 8 pixels a single one is left.
            return max(config.data.input_shape[1:]) <= RESNET_REDUCTION
        case _:
            return False


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
