"""A mini-batch that does not fit into memory, worked through in micro-batches that make up the same weight update.

The loss of a mini-batch is the mean over its samples, and so is its gradient: with n samples in micro-batches of n_i

    loss = Σ (n_i / n) · loss_i        gradient = Σ (n_i / n) · gradient_i

exactly, but for rounding; weights of classes and smoothed labels included, see ``losses``. Two things are not the same:
batch normalisation takes its statistics from each micro-batch (the running ones come out as the weighted mean of what
each micro-batch alone would have made of them), and dropout draws other masks, those of the attempt that failed aside.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from epochd.errors import OutOfMemoryError
from epochd.training import device as devices


class Differentiate(Protocol):
    """Calculates the loss of a mini-batch, or a part of one, and its gradient."""

    def __call__(self, x: Tensor, y: Tensor, loss_slot: Tensor, /) -> Tensor:
        """The outputs; writes the mean loss into ``loss_slot`` and its gradient into the flat one."""

    def forget(self) -> None:
        """Give up the memory that a call has left behind which did not come to its end."""


_BATCH_STATISTICS = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the class that all batch norms share
_LEAST_WITH_BATCH_STATISTICS = 3
"""One sample has no variance; two or more are made up of twos and threes."""


class Buffers:
    """What a forward pass changes beside its outputs, as it was before: running statistics, mostly."""

    def __init__(self, model: nn.Module) -> None:
        self._buffers = list(model.buffers())
        self._before = [buffer.clone() for buffer in self._buffers]

    def __len__(self) -> int:
        return len(self._buffers)

    def remember(self) -> None:
        """Keep them as they are now."""
        for before, buffer in zip(self._before, self._buffers, strict=True):
            before.copy_(buffer)

    def restore(self) -> None:
        """Make them what they were."""
        for before, buffer in zip(self._before, self._buffers, strict=True):
            buffer.copy_(before)

    def sums(self) -> list[Tensor]:
        """Zeros like them, for ``add``."""
        return [torch.zeros_like(buffer) for buffer in self._buffers]

    def add(self, sums: list[Tensor], weight: float) -> None:
        """Add them as they are now with a weight; counters, which are whole numbers, are kept as they are."""
        for total, buffer in zip(sums, self._buffers, strict=True):
            if buffer.is_floating_point():
                total.add_(buffer, alpha=weight)
            else:
                total.copy_(buffer)

    def put(self, sums: list[Tensor]) -> None:
        """Make them what was added up."""
        for total, buffer in zip(sums, self._buffers, strict=True):
            buffer.copy_(total)


class MicroBatches:
    """Calculates loss and gradient of a mini-batch, whole at first, and in micro-batches once memory ran out.

    ``size`` is the most samples that are worked through together; None while whole mini-batches fit. ``is_news`` says
    that it has become smaller since whoever reads that has set it to False.
    """

    def __init__(
        self,
        differentiate: Differentiate,
        model: nn.Module,
        gradient: Tensor,
        *,
        device: torch.device,
    ) -> None:
        self.size: int | None = None
        self.is_news = False
        self.has_batch_statistics = any(isinstance(module, _BATCH_STATISTICS) for module in model.modules())
        self._differentiate = differentiate
        self._gradient = gradient
        self._device = device
        self._buffers = Buffers(model)
        self._least = _LEAST_WITH_BATCH_STATISTICS if self.has_batch_statistics else 1

    @property
    def current(self) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """What to call for the next mini-batch; nothing is put around a whole one without buffers to remember."""
        if self.size is not None:
            return self._in_parts
        return self._whole if len(self._buffers) else self._differentiate

    def reduce(self, samples: int) -> None:
        """Halve the size, after a mini-batch of so many samples did not fit; all is as before that was begun.

        Raises OutOfMemoryError when it cannot be smaller.
        """
        self._differentiate.forget()
        before = min(self.size or samples, samples)
        size = max(-(-before // 2), self._least)
        if size >= before:
            raise OutOfMemoryError(
                f"The model does not fit into memory with {_samples(before)} at a time, which is the least that "
                "it can be trained with. Make the model or its inputs smaller, or train it on a larger machine."
            )
        self._buffers.restore()
        devices.give_memory_back(self._device)
        self.size, self.is_news = size, True

    def parts(self, samples: int) -> int:
        """In how many micro-batches a mini-batch of so many samples is worked through."""
        if self.size is None or samples <= self.size:
            return 1
        return -(-samples // self.size)

    def _whole(self, x: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        self._buffers.remember()
        return self._differentiate(x, y, loss_slot)

    def _in_parts(self, x: Tensor, y: Tensor, loss_slot: Tensor) -> Tensor:
        parts = self.parts(len(x))
        if parts == 1:
            return self._whole(x, y, loss_slot)
        self._buffers.remember()
        loss, gradient = torch.zeros_like(loss_slot), torch.zeros_like(self._gradient)
        sums, outputs = self._buffers.sums(), []
        for part_x, part_y in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
            self._buffers.restore()
            outputs.append(self._differentiate(part_x, part_y, loss_slot))
            weight = len(part_x) / len(x)
            loss.add_(loss_slot, alpha=weight)
            gradient.add_(self._gradient, alpha=weight)
            self._buffers.add(sums, weight)
        loss_slot.copy_(loss)
        self._gradient.copy_(gradient)
        self._buffers.put(sums)
        return torch.cat(outputs)


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count} samples"
