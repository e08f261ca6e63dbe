"""The most memory that a stretch of work holds."""

from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What resets VmHWM, the high-water mark of resident memory, to what is resident now: see proc(5)."""


class MemoryPeak:
    """The most bytes held on ``device`` since this was made; making another starts anew.

    On CUDA what torch's allocator had given out. On the CPU the resident memory of the whole process, Python and the
    data included, by the kernel's own high-water mark: no sampling that a short peak could slip through.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")
        except OSError:
            self._is_known = False

    def bytes(self) -> int | None:
        """The peak; None where the system does not tell."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if not self._is_known:
            return None
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        mark = next((line for line in lines if line.startswith("VmHWM:")), None)
        return None if mark is None else int(mark.split()[1]) * 1024
