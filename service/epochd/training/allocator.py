"""What the C library does with the memory that an iteration frees."""

import contextlib
import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's ``malloc.h``."""
KEPT_BYTES = 512 * 2**20
"""Up to so much freed memory at the end of the heap stays with the process."""
HEAP_BYTES = 64 * 2**20
"""Blocks up to this size come from the heap; larger ones, data sets mostly, go back to the system when freed."""


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed activations for the next iteration.

    glibc gives megabytes back to the system as soon as they are freed, and the system hands out zeroed pages for
    them again, one fault each, in every iteration: 5 to 20 % of a convolutional network's time. False where the C
    library has no such settings (it is not glibc); nothing is changed then.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, HEAP_BYTES) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))


def give_freed_memory_back() -> None:
    """Let the C library give freed memory back to the system, where it is one that can."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
