"""Layers of ``torch.nn`` with their gradients, by the kernels that autograd would call.

Each does what its module does in training mode. Its parameters and their gradients are the module's own tensors.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_aten = torch.ops.aten
_KEPT = ("_x", "_outputs", "_factors", "_indices", "_statistics")
"""Under which names layers keep what they need again on the way back."""


class Layer(ABC):
    """One layer; each ``backward`` belongs to the ``forward`` before it."""

    has_parameters = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The outputs for ``x``; a layer without parameters may change ``x`` in place."""

    @abstractmethod
    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """Set the parameters' gradients; gives the gradient by the inputs, or anything unless ``by_inputs``.

        ``gradient`` is that by the outputs, in their shape, and may be changed in place.
        """

    def forget(self) -> None:
        """Give up what ``forward`` has kept for ``backward``."""
        for name in _KEPT:
            self.__dict__.pop(name, None)


class _Weighted(Layer):
    """A layer with a weight and a bias."""

    has_parameters = True

    def __init__(self, module: nn.Linear | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        weight, bias = module.weight, module.bias
        assert bias is not None
        assert weight.grad is not None
        assert bias.grad is not None
        self._weight, self._bias = weight.detach(), bias.detach()
        self._by_weight, self._by_bias = weight.grad, bias.grad


class Linear(_Weighted):
    """x · weightᵀ + bias."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__(module)
        self._transposed = self._weight.t()

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (n, features)."""
        self._x = x
        return torch.addmm(self._bias, x, self._transposed)

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the weight, the bias, and the inputs."""
        torch.mm(gradient.t(), self._x, out=self._by_weight)
        torch.sum(gradient, 0, out=self._by_bias)
        return torch.mm(gradient, self._weight) if by_inputs else gradient


class Conv2d(_Weighted):
    """A convolution, in the memory format of its inputs."""

    def __init__(self, module: nn.Conv2d) -> None:
        super().__init__(module)
        is_transposed, output_padding = False, (0, 0)
        how = (module.stride, module.padding, module.dilation, is_transposed, output_padding, module.groups)
        self._how = how

    def forward(self, x: Tensor) -> Tensor:
        """The outputs (n, channels, height, width)."""
        self._x = x
        outputs: Tensor = _aten.convolution.default(x, self._weight, self._bias, *self._how)
        return outputs

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the weight, the bias, and the inputs."""
        wanted = (by_inputs, True, True)
        by_x, by_weight, by_bias = _aten.convolution_backward.default(
            gradient, self._x, self._weight, self._bias.shape, *self._how, wanted
        )
        self._by_weight.copy_(by_weight)
        self._by_bias.copy_(by_bias)
        return by_x if by_inputs else gradient


class BatchNorm(_Weighted):
    """Normalisation of each channel by the mini-batch's statistics, which the running ones follow."""

    def __init__(self, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__(module)
        assert module.num_batches_tracked is not None
        assert module.momentum is not None
        self._batches = module.num_batches_tracked
        self._running = module.running_mean, module.running_var
        self._momentum, self._eps = module.momentum, module.eps

    def forward(self, x: Tensor) -> Tensor:
        """The outputs; raises ValueError for a single value per channel, which has no variance."""
        if x.numel() == x.shape[1]:
            raise ValueError(f"Batch norm takes more than one value per channel, not {tuple(x.shape)}.")
        self._x = x
        self._batches.add_(1)
        outputs, *self._statistics = torch.native_batch_norm(
            x, self._weight, self._bias, *self._running, True, self._momentum, self._eps
        )
        return outputs

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the weight, the bias, and the inputs."""
        wanted = (by_inputs, True, True)
        by_x, by_weight, by_bias = _aten.native_batch_norm_backward.default(
            gradient, self._x, self._weight, *self._running, *self._statistics, True, self._eps, wanted
        )
        self._by_weight.copy_(by_weight)
        self._by_bias.copy_(by_bias)
        return by_x if by_inputs else gradient


class Relu(Layer):
    """max(x, 0), in place.

    Its outputs tell as well as its inputs where the gradient passes, also when dropout has since changed them in
    place: what dropout zeroes gets no gradient anyway, and what it enlarges stays above zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, in the place of ``x``."""
        self._outputs = x.relu_()
        return self._outputs

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the inputs, in the place of ``gradient``."""
        del by_inputs
        _aten.threshold_backward.grad_input(gradient, self._outputs, 0, grad_input=gradient)
        return gradient


class Dropout(Layer):
    """Zeroes at random and enlarges the rest, in place; draws from the global generator as torch's does."""

    def __init__(self, module: nn.Dropout) -> None:
        self._kept = 1 - module.p

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, in the place of ``x``."""
        self._factors = torch.empty_like(x).bernoulli_(self._kept).div_(self._kept)
        return x.mul_(self._factors)

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the inputs, in the place of ``gradient``."""
        del by_inputs
        return gradient.mul_(self._factors)


class MaxPool2d(Layer):
    """The largest value of each window."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        self._how = (*map(_pair, sizes), module.ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, and where they came from."""
        self._x = x
        outputs, self._indices = _aten.max_pool2d_with_indices.default(x, *self._how)
        return outputs  # type: ignore[no-any-return]

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the inputs."""
        del by_inputs
        arguments = (gradient, self._x, *self._how, self._indices)
        return _aten.max_pool2d_with_indices_backward.default(*arguments)  # type: ignore[no-any-return]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class Flatten(Layer):
    """(n, …) to (n, elements), as a view where the memory format allows."""

    def forward(self, x: Tensor) -> Tensor:
        """The outputs."""
        self._x = x
        return x.flatten(1)

    def backward(self, gradient: Tensor, *, by_inputs: bool) -> Tensor:
        """By the inputs, in their memory format: the layers before are faster when all is in one."""
        del by_inputs
        gradient = gradient.view(self._x.shape)
        return gradient if self._x.is_contiguous() else torch.empty_like(self._x).copy_(gradient)
