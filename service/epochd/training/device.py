"""Where training runs: device, threads, randomness, and the errors that devices raise."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from epochd.errors import InfrastructureError, OutOfMemoryError
from epochd.training.allocator import give_freed_memory_back, keep_freed_memory

SMALL_MULTIPLY_ADDS = 4_000_000
"""Below so many multiply-adds a mini-batch, one CPU thread was as fast as two, and on a busy machine many times
faster: a mini-batch that short ends long before a second thread gets its turn.
"""


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:<index>`` means here.

    ``auto`` is the first CUDA device, else the CPU. Raises InfrastructureError ``device_not_available``.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        found = f"{count} CUDA device(s)" if count else "no CUDA device"
        raise InfrastructureError(
            f"The device {name!r} is not available: this worker has {found}. Ask for 'auto' or 'cpu'.",
            code="device_not_available",
        )
    return torch.device("cuda", index)


def configure(threads: int | None = None) -> None:
    """Set up this process, once, before its first tensor: CPU threads, memory and repeatable CUDA kernels."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed_memory()
    # cuBLAS reads this when its first handle is made; without it, results depend on the order of streams.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def suitable_threads(multiply_adds: int) -> int:
    """CPU threads for mini-batches of so many ``multiply_adds``: one where sharing them would cost more."""
    return 1 if multiply_adds < SMALL_MULTIPLY_ADDS else torch.get_num_threads()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute on ``count`` CPU threads, then on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mixed_seed(*parts: int | str) -> int:
    """A seed of 63 bits that is a function of all ``parts``; neighbouring parts give unrelated seeds."""
    text = ":".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1


class Randomness:
    """torch's global random state, owned by one training while it computes and by its caller in between.

    Dropout draws from the global generators alone; without this, whatever the caller draws between two events
    would change the training.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        self._state = self._get()

    def _get(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self._cuda)]

    def _set(self, state: list[torch.Tensor]) -> None:
        torch.set_rng_state(state[0])
        for device, cuda_state in zip(self._cuda, state[1:], strict=True):
            torch.cuda.set_rng_state(cuda_state, device)

    def swap(self) -> None:
        """Exchange the state that is kept here with the global one."""
        current = self._get()
        self._set(self._state)
        self._state = current

    def state_dict(self) -> dict[str, Any]:
        """The state that is kept here: uint8 tensors, that of the CUDA device None where there is none."""
        return {"cpu": self._state[0], "cuda": self._state[1] if self._cuda else None}

    def load_state_dict(self, state: dict[str, Any], seed: int) -> None:
        """Keep what ``state_dict`` gave. On a CUDA device after training without one, start from ``seed``."""
        self._state[0] = state["cpu"].clone()
        if self._cuda and state["cuda"] is not None:
            self._state[1] = state["cuda"].clone()
        elif self._cuda:
            self._state[1] = torch.Generator(self._cuda[0]).manual_seed(seed).get_state()


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what torch and Python raise when memory runs out into OutOfMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"The model, the data or a mini-batch does not fit into memory: {_first_line(error)}"
        ) from error


def give_memory_back(device: torch.device) -> None:
    """Return what torch keeps of freed memory, so that other sizes can be taken from it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        give_freed_memory_back()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python says by it that memory ran out."""
    # The CPU allocator raises a bare RuntimeError: only its text tells.
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "out of memory" in text
        or "can't allocate memory" in text
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
