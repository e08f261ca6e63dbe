"""Splits, the order of samples, and mini-batches held on the device. Never a DataLoader."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochd.training.config import Task
from epochd.training.device import mixed_seed
from epochd.training.plan import split_sizes

CHUNK_BYTES = 16 * 2**20
"""Mini-batches are gathered together up to this size: large enough to be cheap, small enough for caches."""

MiniBatch = tuple[Tensor, Tensor]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Samples:
    """Features and targets of n samples.

    ``x``: float32 (n, *input_shape), or int32 for the words of a text. ``y``: int64 class numbers (n,), or float32
    (n, targets) for regression.
    """

    x: npt.NDArray[np.float32] | npt.NDArray[np.int32]
    y: npt.NDArray[np.int64] | npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample's features."""
        return self.x.shape[1:]


@dataclass(frozen=True, slots=True)
class DiskSamples:
    """n samples whose features are read when they are needed; only the targets ``y`` are in memory.

    ``take(indices)`` gives the features of the samples ``indices``, int64 (k,) in any order: (k, *shape) of
    ``dtype``, each row a function of its own index alone. Several threads call it at a time. ``dtype`` is float32, or
    int32 for the words of a text.
    """

    take: Callable[[Indices], npt.NDArray[Any]]
    y: npt.NDArray[np.int64] | npt.NDArray[np.float32]
    shape: tuple[int, ...]
    dtype: npt.DTypeLike = np.float32

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The splits of one training, preprocessed.

    A number in ``y`` times ``target_scale`` plus ``target_mean``, both float (targets,), is one in the unit of that
    target; None where the unit is the one of ``y``, and for classification.
    """

    train: Samples | DiskSamples
    validation: Samples | DiskSamples | None = None
    target_scale: npt.NDArray[Any] | None = None
    target_mean: npt.NDArray[Any] | None = None


def split_indices(
    y: npt.NDArray[np.generic], task: Task, fraction: float, seed: int
) -> tuple[Indices, Indices]:
    """Indices of the training and of the validation samples, each ascending; a function of ``seed``.

    The sizes are those of ``split_sizes``. Classification is stratified: each class gives its share, rounded
    by the largest remainder. Raises ValueError as ``split_sizes`` does.
    """
    _, validation_size = split_sizes(len(y), fraction)
    random = np.random.default_rng(seed)
    if task == "classification":
        chosen = _stratified(np.asarray(y), validation_size, random)
    else:
        chosen = random.permutation(len(y))[:validation_size]
    held_back = np.zeros(len(y), dtype=bool)
    held_back[chosen] = True
    return np.flatnonzero(~held_back), np.flatnonzero(held_back)


def _stratified(y: npt.NDArray[np.generic], size: int, random: np.random.Generator) -> Indices:
    classes, counts = np.unique(y, return_counts=True)
    quotas = _largest_remainder(counts, size)
    chosen = [
        random.permutation(np.flatnonzero(y == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.concatenate(chosen)


def _largest_remainder(counts: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Parts of ``size`` proportional to ``counts``, summing to it (Hamilton's method), in whole numbers."""
    quotas, remainders = np.divmod(counts.astype(np.int64) * size, counts.sum())
    largest = np.argsort(-remainders, kind="stable")[: size - quotas.sum()]
    quotas[largest] += 1
    return quotas


def epoch_permutation(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch, int64 (samples,): a function of (seed, epoch) everywhere."""
    generator = torch.Generator().manual_seed(mixed_seed("order", seed, epoch))
    return torch.randperm(samples, generator=generator)


def targets_tensor(y: npt.NDArray[np.generic], task: Task) -> Tensor:
    """The targets as the losses take them: int64 (n,), or float32 (n, targets)."""
    if task == "classification":
        return torch.as_tensor(np.ascontiguousarray(y, dtype=np.int64))
    return torch.as_tensor(np.ascontiguousarray(y, dtype=np.float32)).reshape(len(y), -1)


class SplitOnDevice(Protocol):
    """The samples of one split, wherever they are kept; mini-batches of them come on ``device``.

    ``y`` are the targets of all samples, as the losses take them.
    """

    device: torch.device
    y: Tensor

    def __len__(self) -> int: ...

    @property
    def bytes_per_sample(self) -> int:
        """The size of one sample's features."""

    def slice(self, start: int, stop: int) -> MiniBatch:
        """The samples start … stop - 1."""

    def gather(self, order: Tensor, size: int) -> Generator[MiniBatch]:
        """The samples of ``order``, so many at a time; every tensor is new."""

    def in_order(self, size: int) -> Generator[MiniBatch]:
        """All samples from the first to the last, so many at a time; every tensor is new."""


class DeviceSamples:
    """The samples of one split on the device, or beside it when they would fill it.

    With ``channels_last``, images are kept as (n, height, width, channels) and handed out as (n, channels,
    height, width) views of that, which makes convolutions faster.
    """

    def __init__(
        self, samples: Samples, task: Task, device: torch.device, *, channels_last: bool = False
    ) -> None:
        dtype = np.int32 if np.issubdtype(samples.x.dtype, np.integer) else np.float32
        x = torch.as_tensor(np.ascontiguousarray(samples.x, dtype=dtype))
        self._channels_last = channels_last
        if channels_last:
            x = x.permute(0, 2, 3, 1).contiguous()
        home = device if _fits(x, device) else torch.device("cpu")
        self.device = device
        self.x = x.to(home)
        self.y = targets_tensor(samples.y, task).to(home)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def bytes_per_sample(self) -> int:
        """The size of one sample's features."""
        return max(self.x[0].numel() * self.x.element_size(), 1)

    def take(self, indices: Tensor) -> MiniBatch:
        """The samples at ``indices``, in that order, on the device."""
        indices = indices.to(self.x.device)
        return self._on_device(self.x.index_select(0, indices), self.y.index_select(0, indices))

    def slice(self, start: int, stop: int) -> MiniBatch:
        """The samples start … stop - 1 on the device, as views where they live there."""
        return self._on_device(self.x[start:stop], self.y[start:stop])

    def gather(self, order: Tensor, size: int) -> Generator[MiniBatch]:
        """The samples of ``order``, so many at a time, on the device."""
        for indices in torch.split(order.to(self.x.device), size):
            yield self.take(indices)

    def in_order(self, size: int) -> Generator[MiniBatch]:
        """All samples from the first to the last, so many at a time, on the device.

        Copies, though views would do: kernels may round differently elsewhere in memory, and so each lies as samples
        do that were just read from the disk.
        """
        for start in range(0, len(self), size):
            x, y = self.slice(start, start + size)
            yield x.clone(), y.clone()

    def _on_device(self, x: Tensor, y: Tensor) -> MiniBatch:
        x = x.to(self.device, non_blocking=True)
        return x.permute(0, 3, 1, 2) if self._channels_last else x, y.to(self.device, non_blocking=True)


def _fits(x: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return x.numel() * x.element_size() <= free // 2


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive mini-batches gathered together; ``y`` holds the targets of all of them."""

    mini_batches: list[MiniBatch]
    y: Tensor


def samples_per_chunk(batch_size: int, bytes_per_sample: int) -> int:
    """How many samples to gather together: whole mini-batches, as many as CHUNK_BYTES take, at least one."""
    return batch_size * max(CHUNK_BYTES // (batch_size * bytes_per_sample), 1)


class MiniBatches:
    """The mini-batches of each epoch, in an order that is a function of (seed, epoch).

    ``chunk_size`` samples, a multiple of ``batch_size``, are gathered together.
    """

    def __init__(
        self,
        samples: SplitOnDevice,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool,
        chunk_size: int,
    ) -> None:
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        full = len(samples) // batch_size * batch_size
        self.samples_per_epoch = full if drop_last else len(samples)
        self.chunk_size = chunk_size

    def chunks(self, epoch: int, after: int = 0) -> Generator[Chunk]:
        """The mini-batches of ``epoch`` (counted from 1) but for the first ``after``, several at a time.

        ``after`` mini-batches make up whole chunks. Close what this gives when it is left before its end: a thread may
        be reading ahead.
        """
        start = after * self._batch_size
        if start >= self.samples_per_epoch:
            return
        order = epoch_permutation(len(self._samples), self._seed, epoch)[start : self.samples_per_epoch]
        size = self._batch_size
        with closing(self._samples.gather(order, self.chunk_size)) as gathered:
            for x, y in gathered:
                yield Chunk(list(zip(torch.split(x, size), torch.split(y, size), strict=True)), y)
