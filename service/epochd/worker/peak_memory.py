"""The most memory that a training has held."""

import resource
import sys
from typing import Final

import torch

_UNIT: Final = 1 if sys.platform == "darwin" else 1024
"""Bytes in what getrusage(2) counts resident memory by."""


def peak_memory(device: str) -> int | None:
    """Give the most bytes that this process has held on a device so far; None where that is not known.

    On a GPU what PyTorch's allocator had given out. On the CPU the process's resident memory, with Python, PyTorch and
    the data set in it: about 300 MB before the first mini-batch. An attempt has a process of its own.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
    return None
