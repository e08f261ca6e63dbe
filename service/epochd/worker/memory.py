"""Refuses models that cannot fit, before they take the machine down.

On a GPU, running out of memory is an error that torch raises. On the CPU, Linux grants memory that is not there and
kills a process once it is used: the job would die without a reason, be tried again, and die again.
"""

import psutil

from epochd.errors import OutOfMemoryError
from epochd.training.architecture import layers, parameter_count
from epochd.training.config import TrainingConfig

FLOAT32_BYTES = 4
COPIES = {"sgd": 5, "adam": 6, "adamw": 6}
"""Weights, gradient, the best and the last weights, and the optimizer's state: one copy for SGD, two for Adam."""


def require_memory(config: TrainingConfig) -> None:
    """Raise OutOfMemoryError when the weights, with all that training keeps beside them, exceed the free memory.

    Activations and data are not counted: this is a lower bound.
    """
    if config.device != "cpu":
        return
    parameters = parameter_count(layers(config.model))
    needed = parameters * FLOAT32_BYTES * COPIES[config.optimizer.name]
    available = psutil.virtual_memory().available
    if needed > available:
        raise OutOfMemoryError(
            f"The model has {parameters} parameters; training it takes at least {needed / 1e9:.1f} GB and "
            f"{available / 1e9:.1f} GB are free. Make it smaller, or train it on a larger machine."
        )
