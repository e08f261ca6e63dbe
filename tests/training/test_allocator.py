import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import torch
from epochd.training import device as devices
from epochd.training.allocator import HEAP_BYTES

def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "configured":
    devices.configure(1)
faults(33)
print(faults(33))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_training_process_keeps_the_memory_that_an_iteration_frees():
    def faults(how: str) -> int:
        command = [sys.executable, "-c", COUNT_FAULTS, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    # Blocks of 33 MB: above the size up to which glibc learns by itself to keep them.
    assert faults("configured") < faults("as it is") / 10
