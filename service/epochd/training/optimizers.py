"""SGD, Adam and AdamW over one flat parameter tensor, each update one fused kernel.

The arithmetic is that of ``torch.optim``, whose fused kernels are called directly: around them
``torch.optim.Optimizer.step`` spends four times as long as they take on a small model, and importing it loads
torch's compiler.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from epochd.training.config import OptimizerConfig


class Optimizer(ABC):
    """Updates ``parameters`` in place from ``gradient``; both are flat float32 tensors on one device."""

    def __init__(self, config: OptimizerConfig, parameters: Tensor, gradient: Tensor) -> None:
        self._config = config
        self._parameters = [parameters]
        self._gradients = [gradient]

    @abstractmethod
    def update(self, learning_rate: float) -> None:
        """Change the parameters once."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """The tensors and numbers that ``load_state_dict`` continues from."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""


class Sgd(Optimizer):
    """Stochastic gradient descent with momentum (Sutskever et al., 2013), as in ``torch.optim.SGD``."""

    def __init__(self, config: OptimizerConfig, parameters: Tensor, gradient: Tensor) -> None:
        super().__init__(config, parameters, gradient)
        self._velocity = [torch.zeros_like(parameters)] if config.momentum else []
        self._is_first = True

    def update(self, learning_rate: float) -> None:
        """Velocity = momentum * velocity + gradient; parameters -= learning_rate * velocity."""
        torch._fused_sgd_(  # what torch.optim.SGD(fused=True) calls
            self._parameters,
            self._gradients,
            self._velocity,
            weight_decay=self._config.weight_decay,
            momentum=self._config.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self._config.nesterov,
            maximize=False,
            is_first_step=self._is_first,
        )
        self._is_first = False

    def state_dict(self) -> dict[str, Any]:
        """The velocity, and whether an update has set it."""
        return {"velocity": self._velocity, "is_first": self._is_first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        for mine, given in zip(self._velocity, state["velocity"], strict=True):
            mine.copy_(given)
        self._is_first = state["is_first"]


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), or AdamW with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(self, config: OptimizerConfig, parameters: Tensor, gradient: Tensor) -> None:
        super().__init__(config, parameters, gradient)
        kernel = "_fused_adamw_" if config.name == "adamw" else "_fused_adam_"
        self._kernel = getattr(torch, kernel)  # what torch.optim.AdamW(fused=True) and Adam(fused=True) call
        self._first_moment = [torch.zeros_like(parameters)]
        self._second_moment = [torch.zeros_like(parameters)]
        self._updates = 0
        self._updates_on_device = [torch.zeros((), device=parameters.device)]

    def update(self, learning_rate: float) -> None:
        """One update with bias-corrected moments."""
        self._updates += 1
        self._updates_on_device[0].fill_(self._updates)
        self._kernel(
            self._parameters,
            self._gradients,
            self._first_moment,
            self._second_moment,
            [],
            self._updates_on_device,
            lr=learning_rate,
            beta1=self._config.betas[0],
            beta2=self._config.betas[1],
            weight_decay=self._config.weight_decay,
            eps=self._config.eps,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of updates."""
        return {
            "first_moment": self._first_moment[0],
            "second_moment": self._second_moment[0],
            "updates": self._updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` gave."""
        self._first_moment[0].copy_(state["first_moment"])
        self._second_moment[0].copy_(state["second_moment"])
        self._updates = state["updates"]


def make_optimizer(config: OptimizerConfig, parameters: Tensor, gradient: Tensor) -> Optimizer:
    """The optimizer that ``config`` names, over flat parameters."""
    return (Sgd if config.name == "sgd" else Adam)(config, parameters, gradient)
