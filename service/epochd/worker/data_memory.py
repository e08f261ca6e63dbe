"""How much memory a job's samples may take before they are left on the disk."""

from pathlib import Path
from typing import Final

import psutil

CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""What a container may use: a number, or ``max``."""
PART_FOR_DATA: Final = 4
"""A quarter of the machine is for samples; models, checkpoints and the other processes need the rest."""


def default_data_memory(slots: int, limit: Path = CGROUP_LIMIT) -> int:
    """Bytes for the samples of one of ``slots`` jobs that train at once on this machine or in this container."""
    return min(psutil.virtual_memory().total, _of_container(limit)) // PART_FOR_DATA // slots


def _of_container(limit: Path) -> int:
    try:
        return int(limit.read_text())
    except (OSError, ValueError):  # not in a container, or without a limit
        return 2**63
