"""Refuses models that cannot fit, before they take the machine down.

On a GPU, running out of memory is an error that torch raises. On the CPU, Linux grants memory that is not there and
kills a process once it is used: the job would die without a reason, be tried again, and die again.
"""

from collections.abc import Mapping

import psutil

from epochd.errors import OutOfMemoryError
from epochd.training.architecture import layers
from epochd.training.config import TrainingConfig
from epochd.training.models import parameter_count

FLOAT32_BYTES = 4
COPIES = {"sgd": 5, "adam": 6, "adamw": 6}
"""Weights, gradient, the best and the last weights, and the optimizer's state: one copy for SGD, two for Adam.

Resuming and writing the results take up to two more for a moment, which are not counted.
"""
CHECKPOINT_COPIES = {"sgd": 3, "adam": 4, "adamw": 4}
"""Weights, the optimizer's state, and the best weights, which the copy keeps alive when better ones come."""
HEADROOM = 0.05
"""Part of the machine's memory that a checkpoint leaves free, for the training to go on in."""


def require_memory(config: TrainingConfig) -> None:
    """Raise OutOfMemoryError when the weights, with what training keeps beside them, exceed the free memory.

    Activations and data are not counted: this is a lower bound.
    """
    if config.device != "cpu":
        return
    parameters = parameter_count(layers(config.model))
    needed, available = _bytes(parameters, COPIES, config), _available_bytes()
    if needed > available:
        raise OutOfMemoryError(
            f"The model has {parameters} parameters; training it takes at least {needed / 1e9:.1f} GB and "
            f"{available / 1e9:.1f} GB are free. Make it smaller, or train it on a larger machine."
        )


def require_memory_for_checkpoint(config: TrainingConfig) -> None:
    """Raise OutOfMemoryError when the copy of the state that a checkpoint is made from exceeds the free memory."""
    needed = _bytes(parameter_count(layers(config.model)), CHECKPOINT_COPIES, config)
    available = _available_bytes() - int(HEADROOM * psutil.virtual_memory().total)
    if needed > available:
        raise OutOfMemoryError(
            f"A checkpoint is made from a copy of the training's state, which takes {needed / 1e9:.1f} GB; "
            f"{available / 1e9:.1f} GB are free."
        )


def _bytes(parameters: int, copies: Mapping[str, int], config: TrainingConfig) -> int:
    return parameters * FLOAT32_BYTES * copies[config.optimizer.name]


def _available_bytes() -> int:
    return int(psutil.virtual_memory().available)
