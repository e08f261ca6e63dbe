"""The memory of devices, as the worker reports it; GPUs by a stand-in for NVIDIA's library."""

import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from epochd.store import workers
from epochd.worker import device_memory
from epochd.worker.device_memory import DeviceMemory, read
from epochd.worker.presence import Presence

MACHINE = [("GPU-aaa", 1, 100), ("GPU-bbb", 2, 200), ("GPU-ccc", 3, 300)]


class Nvml:
    """Three GPUs, by the functions that are called of the real library."""

    def __init__(self, monkeypatch, broken=()):
        self.open = 0
        self._broken = broken
        for name in (
            "nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID",
            "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCount",
        ):  # fmt: skip
            monkeypatch.setattr(pynvml, name, getattr(self, name))

    def nvmlInit(self):
        self.open += 1

    def nvmlShutdown(self):
        self.open -= 1

    def nvmlDeviceGetCount(self):
        return len(MACHINE)

    def nvmlDeviceGetHandleByIndex(self, index):
        if not 0 <= index < len(MACHINE):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return MACHINE[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        found = [one for one in MACHINE if one[0] == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def nvmlDeviceGetMemoryInfo(self, handle):
        if handle[0] in self._broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(used=handle[1], total=handle[2])


def bytes_of(used):
    return {"used": used, "total": used * 100}


def test_the_machine_is_the_memory_of_cpu():
    found = read(["cpu"])
    assert found["cpu"]["total"] == psutil.virtual_memory().total
    assert 0 < found["cpu"]["used"] < found["cpu"]["total"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {"cuda:0": 1, "cuda:1": 2}),
        ("2,0", {"cuda:0": 3, "cuda:1": 1}),
        ("GPU-bbb, GPU-aaa", {"cuda:0": 2, "cuda:1": 1}),
        ("1", {"cuda:0": 2}),
        ("GPU-zzz,7", {}),
        ("", {}),
        ("nonsense,2", {"cuda:1": 3}),
    ],
)
def test_gpus_are_those_that_cuda_sees(monkeypatch, visible, expected):
    nvml = Nvml(monkeypatch)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = read(["cuda:0", "cuda:1"], environment)
    assert found == {name: bytes_of(used) for name, used in expected.items()}
    assert nvml.open == 0


@pytest.mark.parametrize(("order", "told"), [("FASTEST_FIRST", False), ("PCI_BUS_ID", True)])
def test_no_number_is_better_than_that_of_another_gpu(monkeypatch, order, told):
    nvml = Nvml(monkeypatch)
    assert bool(read(["cuda:0"], {"CUDA_DEVICE_ORDER": order})) == told
    assert nvml.open == 0


ORDER = """
import os, sys
from epochd.worker.executors import local
local.PRELOAD = "json"
executor = local.LocalExecutor()
executor.start()
child = executor._context.Process(target=os.system, args=("echo $CUDA_DEVICE_ORDER",))
child.start()
child.join()
executor.close()
"""


@pytest.mark.parametrize("wanted", [None, "FASTEST_FIRST"])
def test_runners_number_gpus_as_the_worker_does(wanted):
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_DEVICE_ORDER"}
    environment |= {} if wanted is None else {"CUDA_DEVICE_ORDER": wanted}
    told = subprocess.check_output([sys.executable, "-c", ORDER], env=environment, text=True)
    assert told == f"{wanted or 'PCI_BUS_ID'}\n"


def test_one_that_does_not_tell_is_left_out(monkeypatch):
    Nvml(monkeypatch, broken=("GPU-aaa",))
    assert read(["cuda:0", "cuda:1"], {}) == {"cuda:1": bytes_of(2)}


def test_a_machine_without_a_driver(monkeypatch):
    def fail():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert set(read(["cpu", "cuda:0"])) == {"cpu"}


def test_what_is_old_is_told_no_more(monkeypatch):
    memory = DeviceMemory(["cpu", "cpu"])
    assert memory.newest() == {}
    memory.stop()
    memory.tick()
    assert set(memory.newest()) == {"cpu"}
    monkeypatch.setattr(device_memory, "STALE_SECONDS", 0)
    assert memory.newest() == {}


def test_a_worker_says_it_with_its_presence(database):
    memory = DeviceMemory(["cpu"])
    presence = Presence(database, "w:1", ["cpu"], memory)
    presence.arrive()
    memory.stop()
    memory.tick()
    presence.stop()
    presence.tick()
    with database.read() as tx:
        [row] = workers.alive(tx)
    assert row.devices == ["cpu"]
    assert row.memory["cpu"]["total"] == psutil.virtual_memory().total
