"""Makes an operator's model, and sees to it that it is what the engine trains."""

import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from epochd.errors import ModelError, TrainingError
from epochd.training import device as devices
from epochd.training.config import DataShape
from epochd.training.operator_package import OperatorPackage, load

log = logging.getLogger("epochd.training")

_TRIED: Final = 2
"""Samples that a new model is tried with: batch normalisation takes no fewer, and one might hide a lost axis."""


def build(name: str, data: DataShape, parameters: Mapping[str, Any]) -> nn.Module:
    """Make the model ``name``, with its initialisation drawn from torch's global generator.

    Raises ModelError when the package refuses the parameters or the data, fails, or makes what is no model for them;
    InfrastructureError when it is not installed here. What a ValueError of ``build`` says is passed on to the caller.
    """
    try:
        package = load(name)
        model: nn.Module = package.provider.build(data, package.parameters(parameters))
        _require_module(package, model)
        _require_outputs(package, model, data)
        _require_trainable(package, model)
    except TrainingError:
        raise
    except ValueError as error:
        raise ModelError(f"The model {name!r} cannot be made: {error}") from error
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if torch.get_default_device().type == "meta":  # it was only to be counted, without its memory
            raise
        raise _broken(name, error) from error
    return model


def encoding(name: str) -> str:
    """How the categories of a table are to reach the model ``name``; raises as ``build`` does."""
    try:
        return load(name).encoding
    except TrainingError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


@contextmanager
def failures(name: str) -> Iterator[None]:
    """Turn what the model ``name`` raises while it is used into ModelError: another attempt would end the same way.

    What comes of the machine passes: OutOfMemoryError, and OSError, as from reading samples.
    """
    try:
        with devices.memory_errors():
            yield
    except (TrainingError, OSError):
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _require_module(package: OperatorPackage, model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise _refused(package, f"build gave a {type(model).__name__}, and not an nn.Module")


def _require_trainable(package: OperatorPackage, model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    if not parameters:
        raise _refused(package, "it has no parameters to train")
    for name, parameter in parameters.items():
        if isinstance(parameter, nn.UninitializedParameter):
            raise _refused(package, f"{name} has no shape yet, for forward does not use it")
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            frozen = "" if parameter.requires_grad else " that is not trained: make it a buffer"
            raise _refused(
                package, f"{name} has to be a float32 parameter; it is one of {parameter.dtype}{frozen}"
            )


def _require_outputs(package: OperatorPackage, model: nn.Module, data: DataShape) -> None:
    x = torch.zeros(_TRIED, *data.input_shape, dtype=torch.int32 if data.kind == "text" else torch.float32)
    training = model.training
    model.eval()
    with torch.no_grad():
        outputs = model(x)
    model.train(training)
    wanted = (_TRIED, data.outputs)
    given = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if given != wanted:
        raise _refused(package, f"for x of the shape {tuple(x.shape)} it gives {given}, and not {wanted}")


def _refused(package: OperatorPackage, why: str) -> ModelError:
    where = f"{package.package['name']} {package.package['version']}"
    return ModelError(
        f"The model {package.name!r} of {where} cannot be trained: {why}.", code="model_not_trainable"
    )


def _broken(name: str, error: Exception) -> ModelError:
    """Log what went wrong inside the package; callers get a reference, not its text."""
    reference = secrets.token_hex(4)
    log.error("the model %r failed, reference %s", name, reference, exc_info=error)
    message = (
        f"The model {name!r} failed with {type(error).__name__}; the worker's log has the details under reference "
        f"{reference}."
    )
    return ModelError(message, code="model_failed")
