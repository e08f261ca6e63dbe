from pathlib import Path

import numpy as np
import pytest

from epochd.datasets.info import Column, DatasetInfo
from epochd.datasets.mapped import read_at_random
from epochd.datasets.raw import RawData
from epochd.datasets.stored import StoredWriter, open_stored

NUMBERS = np.arange(4096, dtype=np.float32).reshape(1024, 4)


@pytest.fixture
def stored(tmp_path: Path) -> RawData:
    """Four columns of numbers, 16 KiB, and no dates."""
    columns = tuple(Column(name) for name in "abcd")
    with StoredWriter(tmp_path) as writer:
        writer.append("numbers", NUMBERS)
        writer.append("dates", np.empty((1024, 0), np.int64))
        writer.append("y", np.arange(1024) % 2)
        writer.finish(
            DatasetInfo("stored", "classification", 1024, (4,), ("no", "yes"), 0, "", columns=columns)
        )
    return open_stored(tmp_path)


def advised(path: Path) -> bool:
    """Whether the kernel reads a file's mapping at random: the flag ``rr`` of its mapping."""
    within = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            within = line.endswith(str(path))
        elif within and line.startswith("VmFlags:"):
            return "rr" in line.split()
    raise AssertionError(f"{path} is not mapped")


def test_only_what_exceeds_the_memory_is_read_at_random(stored, tmp_path):
    assert not read_at_random(stored)
    assert not read_at_random(stored, memory=NUMBERS.nbytes)
    assert not advised(tmp_path / "numbers.bin")
    assert read_at_random(stored, memory=NUMBERS.nbytes - 1)
    assert advised(tmp_path / "numbers.bin")
    assert np.array_equal(stored.parts["numbers"], NUMBERS)


def test_arrays_in_memory_are_left_alone(stored):
    held = RawData(stored.info, {"numbers": NUMBERS}, stored.y, stored.digest)
    assert not read_at_random(held, memory=0)
