"""How much memory the devices of a worker have, and how much of it is in use, by whomever.

GPUs are asked through NVIDIA's management library, which needs no torch. A driver that hangs holds nobody up but the
thread here: what is known grows old, and is told no more.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from epochd.worker.loop import Loop

log = logging.getLogger("epochd.worker")

READ_EVERY_SECONDS = 5.0
STALE_SECONDS = 15.0

Memory = dict[str, dict[str, int]]
"""Of each device by its name, the bytes that are ``used`` and in ``total``; one that does not say is left out."""


class DeviceMemory(Loop):
    """Reads the memory of some devices again and again."""

    def __init__(self, devices: Sequence[str]) -> None:
        super().__init__("device memory")
        self._devices = sorted(set(devices))
        self._newest: Memory = {}
        self._read_at = -STALE_SECONDS

    def tick(self) -> None:
        """Read once more."""
        self._newest, self._read_at = read(self._devices), time.monotonic()
        self.stopping.wait(READ_EVERY_SECONDS)

    def newest(self) -> Memory:
        """Tell what was read last; nothing when that is long ago."""
        return self._newest if time.monotonic() - self._read_at < STALE_SECONDS else {}


def read(devices: Sequence[str], environment: Mapping[str, str] = os.environ) -> Memory:
    """Read the memory of devices such as ``cpu`` and ``cuda:0``; those that do not tell are left out."""
    found = {"cpu": _machine()} if "cpu" in devices else {}
    gpus = [name for name in devices if name.startswith("cuda:")]
    return found | (_gpus(gpus, environment) if gpus else {})


def _machine() -> dict[str, int]:
    memory = psutil.virtual_memory()
    return {"used": memory.total - memory.available, "total": memory.total}


def _gpus(names: Sequence[str], environment: Mapping[str, str]) -> Memory:
    import pynvml  # noqa: PLC0415 - only where there is a GPU

    found: Memory = {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("NVIDIA's management library does not work: %s", error)
        return found
    try:
        if _counts_alike(pynvml, environment):
            visible = environment.get("CUDA_VISIBLE_DEVICES")
            for name in names:
                _ask(pynvml, name, visible, found)
    finally:
        pynvml.nvmlShutdown()
    return found


def _counts_alike(nvml: Any, environment: Mapping[str, str]) -> bool:
    """Tell whether CUDA and the library number the GPUs alike: by their place, which the operator may not want."""
    by_speed = environment.get("CUDA_DEVICE_ORDER") == "FASTEST_FIRST"
    return not by_speed or bool(nvml.nvmlDeviceGetCount() == 1)


def _ask(nvml: Any, name: str, visible: str | None, found: Memory) -> None:
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, int(name.removeprefix("cuda:")), visible))
    except (nvml.NVMLError, ValueError, IndexError) as error:
        log.debug("%s does not tell its memory: %s", name, error)
    else:
        found[name] = {"used": int(memory.used), "total": int(memory.total)}


def _handle(nvml: Any, index: int, visible: str | None) -> Any:
    """Find the device that CUDA calls by this index: CUDA counts only what it is allowed to see."""
    if visible is None:
        return nvml.nvmlDeviceGetHandleByIndex(index)
    identity = visible.split(",")[index].strip()
    if identity.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(identity)
    return nvml.nvmlDeviceGetHandleByIndex(int(identity))
