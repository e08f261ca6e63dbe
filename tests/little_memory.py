"""A device that is too small, for tests of what happens then."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

FORWARD, BACKWARD = "addmm", "mm"


class LittleMemory(TorchDispatchMode):
    """Fails as a full device does when a kernel is called with more than ``fits`` samples; at first after so many."""

    def __init__(self, fits, *, kernel=FORWARD, calls_before=0, error=torch.OutOfMemoryError):
        super().__init__()
        self.fits, self.kernel, self.calls_before, self.error = fits, kernel, calls_before, error

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ == self.kernel:
            samples = args[1 if self.kernel == FORWARD else 0].shape[0]
            self.calls_before -= 1
            if self.calls_before < 0 and samples > self.fits:
                raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")
        return func(*args, **(kwargs or {}))
