"""The most memory that a training has held, and that its job shows it."""

import subprocess
import sys

import psutil
import pytest
import torch
from tests.worker.conftest import DIGITS

from epochd.jobs.claim import claim
from epochd.jobs.view import to_job
from epochd.store import jobs
from epochd.worker import runner
from epochd.worker.order import AttemptOrder
from epochd.worker.peak_memory import peak_memory

# In a process of its own: the peak of this one may be anywhere above what it holds now.
ALLOCATE = """
import psutil, torch
from epochd.worker.peak_memory import peak_memory
before = psutil.Process().memory_info().rss
held = torch.ones(50_000_000)
del held
print(before, peak_memory("cpu"), psutil.Process().memory_info().rss)
"""


def test_on_the_cpu_it_is_what_the_process_held_at_most():
    done = subprocess.run(
        [sys.executable, "-c", ALLOCATE], capture_output=True, text=True, check=True, timeout=60
    )
    before, peak, after = map(int, done.stdout.split())
    assert peak - before > 195e6
    assert peak - after > 150e6  # what was given back still counts
    assert peak < psutil.virtual_memory().total


def test_of_a_device_that_does_not_tell_it_is_not_known():
    assert peak_memory("mps") is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_what_its_tensors_took():
    before = torch.cuda.memory_allocated("cuda:0")
    held = torch.ones(50_000_000, device="cuda:0")
    del held
    assert peak_memory("cuda:0") >= before + 200_000_000


def test_a_job_shows_it(database, database_url, folders, queue):
    queue(DIGITS, epochs=1)
    taken = claim(database, worker="worker", device="cpu", lease_seconds=30)
    order = AttemptOrder.of(taken, database_url=database_url, folders=folders, lease_seconds=30)
    assert runner.run_attempt(order).error is None
    with database.read() as tx:
        shown = to_job(jobs.get(tx, order.job_id)).progress
    assert 50e6 < shown.peak_memory_bytes <= peak_memory("cpu")
