"""From the description of a model to the model."""

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from epochd.training import architecture
from epochd.training.architecture import LAYER_TYPES, OPERATOR_MODEL
from epochd.training.config import DataShape
from epochd.training.models.ft_transformer import FtTransformer
from epochd.training.models.resnet import ResNet
from epochd.training.models.tabular_resnet import TabularResNet
from epochd.training.models.text_classifier import TextClassifier

log = logging.getLogger("epochd.training")

COMPOSITE: dict[str, type[nn.Module]] = {
    "FtTransformer": FtTransformer,
    "ResNet": ResNet,
    "TabularResNet": TabularResNet,
    "TextClassifier": TextClassifier,
}


def build(described: Sequence[Mapping[str, Any]]) -> nn.Module:
    """Make the model of a description, initialised from the global generator.

    Layers of ``torch.nn`` are initialised as torch does it, composite models as each says. Raises ValueError for a
    layer type that no model here has.
    """
    if len(described) == 1 and described[0]["type"] not in LAYER_TYPES:
        return _composite(**described[0])
    modules = []
    for layer in described:
        arguments = {name: value for name, value in layer.items() if name != "type"}
        if layer["type"] not in LAYER_TYPES:
            raise _unknown(layer["type"])
        modules.append(getattr(nn, layer["type"])(**arguments))
    return nn.Sequential(*modules)


def _composite(type: str, **arguments: Any) -> nn.Module:  # noqa: A002 - the descriptions' own word
    if type == OPERATOR_MODEL:
        return _operator_model(**arguments)
    if type not in COMPOSITE:
        raise _unknown(type)
    return COMPOSITE[type](**arguments)


def _operator_model(name: str, data: Mapping[str, Any], parameters: Mapping[str, Any]) -> nn.Module:
    # Imported when there is one: it looks through the installed packages.
    operator_models = import_module("epochd.training.operator_models")
    model: nn.Module = operator_models.build(name, _data_shape(data), parameters)
    return model


def _data_shape(data: Mapping[str, Any]) -> DataShape:
    return DataShape(
        kind=data["kind"],
        input_shape=tuple(data["input_shape"]),
        outputs=data["outputs"],
        categories=tuple(data["categories"]),
        vocabulary=data["vocabulary"],
    )


def _unknown(kind: str) -> ValueError:
    known = sorted({*LAYER_TYPES, *COMPOSITE})
    return ValueError(f"{kind!r} is no layer of these models; they have {known}.")


def draws_randomness(described: Sequence[Mapping[str, Any]], model: nn.Module) -> bool:
    """Whether a forward pass in training mode may draw random numbers; for an operator's model it is assumed."""
    if described[0]["type"] == OPERATOR_MODEL:
        return True
    return any(isinstance(module, nn.Dropout) for module in model.modules())


def parameter_count(described: Sequence[Mapping[str, Any]]) -> int:
    """The number of trained parameters of a description; nothing of their size is allocated.

    0 for an operator's model that cannot be made without its memory.
    """
    if all(layer["type"] in LAYER_TYPES for layer in described):
        return architecture.parameter_count(described)
    try:
        with torch.device("meta"), _WithoutDrawing():
            return sum(parameter.numel() for parameter in build(described).parameters())
    except Exception:
        if described[0]["type"] != OPERATOR_MODEL:
            raise
        log.info("the parameters of %s cannot be counted", described[0]["name"], exc_info=True)
        return 0


class _WithoutDrawing(TorchFunctionMode):
    """Leaves tensors without memory as they are where normal numbers would be drawn.

    torch would load its compiler for that, which takes a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.__name__ == "normal_":  # the tensor's own, and that of torch.nn.init
            return args[0] if args else given["tensor"]
        return func(*args, **given)
