"""Samples that are read from the disk while the ones before them are trained on."""

import resource
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from epochd.errors import DataError
from epochd.training.config import Task
from epochd.training.data import (
    DeviceSamples,
    DiskSamples,
    Indices,
    MiniBatch,
    Samples,
    SplitOnDevice,
    samples_per_chunk,
    targets_tensor,
)
from epochd.training.prefetch import prefetched

READERS = 16
"""How many threads wait for the disk at a time: it is many times faster when it is asked for much at once."""
WAITS_FOR_DISK = 0.01
"""Part of the samples of a chunk that stop for the disk from which on ``READERS`` threads read the next one."""


def on_device(
    samples: Samples | DiskSamples, task: Task, device: torch.device, *, channels_last: bool = False
) -> SplitOnDevice:
    """The samples of a split, as mini-batches are taken from them: the same bits, in memory or not."""
    if isinstance(samples, Samples):
        return DeviceSamples(samples, task, device, channels_last=channels_last)
    return StreamedSamples(samples, task, device, channels_last=channels_last)


class StreamedSamples:
    """The samples of one split, read and preprocessed a chunk at a time by a thread, in exactly the order asked for.

    The samples of a chunk are read in ascending order, which is kind to disks and caches, and put where they belong.
    Nothing of it runs on torch's threads, and one thread does it all, so that training has its CPUs for itself; only
    where it waits for the disk, several wait.

    ``channels_last`` is that of ``DeviceSamples``. Raises DataError ``non_finite_data`` when a chunk holds NaN or an
    infinity, and what reading raises.
    """

    def __init__(
        self, samples: DiskSamples, task: Task, device: torch.device, *, channels_last: bool = False
    ) -> None:
        self.device = device
        self.y = targets_tensor(samples.y, task)
        self._take = samples.take
        self._shape = samples.shape
        self._dtype = torch.int32 if np.issubdtype(samples.dtype, np.integer) else torch.float32
        self._channels_last = channels_last

    def __len__(self) -> int:
        return len(self.y)

    @property
    def bytes_per_sample(self) -> int:
        """The size of one sample's features."""
        return max(int(np.prod(self._shape)) * self._dtype.itemsize, 1)

    def slice(self, start: int, stop: int) -> MiniBatch:
        """The samples start … stop - 1 on the device, read now."""
        with closing(self._read([np.arange(start, min(stop, len(self)))])) as read:
            return self._on_device(next(read))

    def gather(self, order: Tensor, size: int) -> Generator[MiniBatch]:
        """The samples of ``order``, so many at a time, on the device."""
        with closing(prefetched(self._read(_parts(order.numpy(), size)))) as read:
            for chunk in read:
                yield self._on_device(chunk)

    def in_order(self, size: int) -> Generator[MiniBatch]:
        """All samples from the first to the last, so many at a time, on the device."""
        everything = np.arange(len(self))
        chunks = _parts(everything, samples_per_chunk(size, self.bytes_per_sample))
        with closing(prefetched(self._read(chunks))) as read:
            for chunk in read:
                x, y = self._on_device(chunk)
                for mini_batch in zip(torch.split(x, size), torch.split(y, size), strict=True):
                    yield mini_batch[0].clone(), mini_batch[1].clone()

    def _on_device(self, chunk: MiniBatch) -> MiniBatch:
        x, y = (tensor.to(self.device, non_blocking=True) for tensor in chunk)
        return x.permute(0, 3, 1, 2) if self._channels_last else x, y

    def _read(self, chunks: Iterable[Indices]) -> Generator[MiniBatch]:
        """The samples of each chunk in memory, images in the layout that they are trained in."""
        with ThreadPoolExecutor(READERS, "reader") as pool:
            readers = 1
            for indices in chunks:
                x, y = self._empty(len(indices))
                waits = self._fill(x, indices, readers, pool)
                np.copyto(y.numpy(), self.y.numpy()[indices])
                readers = READERS if waits > WAITS_FOR_DISK * len(indices) else 1
                yield x, y
                del x, y  # they live as long as they are trained on, and no longer

    def _empty(self, count: int) -> MiniBatch:
        # Made by torch, they lie in memory as those do that are gathered from memory: kernels round alike.
        pinned = self.device.type == "cuda"
        shape = self._shape
        if self._channels_last:
            channels, *size = shape
            shape = (*size, channels)
        x = torch.empty((count, *shape), dtype=self._dtype, pin_memory=pinned)
        return x, torch.empty((count, *self.y.shape[1:]), dtype=self.y.dtype, pin_memory=pinned)

    def _fill(self, x: Tensor, indices: Indices, readers: int, pool: ThreadPoolExecutor) -> int:
        """Read the samples into ``x``; gives how many times a reader had to wait for the disk."""
        target = x.numpy().transpose(0, 3, 1, 2) if self._channels_last else x.numpy()
        order = np.argsort(indices)
        if readers == 1:
            return self._fill_part(target, order, indices)
        parts = np.array_split(order, readers)
        return sum(pool.map(lambda part: self._fill_part(target, part, indices), parts))

    def _fill_part(self, target: npt.NDArray[np.generic], part: Indices, indices: Indices) -> int:
        before = _disk_waits()
        rows = self._take(indices[part])
        assert rows.shape == (len(part), *self._shape), (rows.shape, self._shape)
        if len(rows) and not np.isfinite([rows.min(), rows.max()]).all():
            raise DataError("The data hold NaN or infinite values.", code="non_finite_data")
        target[part] = rows
        return _disk_waits() - before


def _parts(indices: Indices, size: int) -> Iterator[Indices]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def _disk_waits() -> int:
    """How many times this thread touched mapped memory that had to be read from the disk."""
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_majflt
