"""How the kernel is told that mapped arrays are read."""

import mmap
from collections.abc import Iterable, Iterator

import numpy as np
import psutil

from epochd.datasets.raw import Array, RawData


def read_at_random(raw: RawData, memory: int | None = None) -> bool:
    """Tell the kernel that rows are read in no order, if what is mapped exceeds ``memory``; whether it does.

    ``memory`` is in bytes; by default all that is free. The kernel then reads the pages that are asked for and no more.
    Otherwise it reads many around each, which brings what fits into memory there soon, and makes everything slow that
    does not fit.
    """
    maps = list(_maps(raw.parts.values()))
    memory = psutil.virtual_memory().available if memory is None else memory
    exceeds = sum(len(one) for one in maps) > memory
    if exceeds:
        for one in maps:
            one.madvise(mmap.MADV_RANDOM)
    return exceeds


def _maps(arrays: Iterable[Array]) -> Iterator[mmap.mmap]:
    for array in arrays:
        found = array._mmap if isinstance(array, np.memmap) else None  # type: ignore[attr-defined] # noqa: SLF001
        if found is not None:
            yield found
