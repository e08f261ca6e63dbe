"""What the API processes measure of themselves, one or several of them: every scrape tells of all.

Several processes (``epochd serve --api-workers N``) keep their numbers in files of one directory, which their
``__main__`` tells prometheus_client of, and whoever is asked adds them up. The files of a process that died stay, so
that no counter ever falls; but for the gauges, which tell of what is.
"""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from epochd.api.shared_directory import VARIABLE
from epochd.api.traffic import Traffic


def measure() -> tuple[Traffic, Collector]:
    """Make what this process measures, and what collects it, and that of its siblings, for a scrape."""
    registry = CollectorRegistry()
    PlatformCollector(registry)
    directory = os.environ.get(VARIABLE)
    if directory is not None:
        registry.register(_Siblings(Path(directory)))
        return Traffic(None), registry
    GCCollector(registry)
    ProcessCollector(registry=registry)
    return Traffic(registry), registry


class _Siblings(Collector):
    """The sums over all API processes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        alive = list(self._alive())
        yield from MultiProcessCollector(None, str(self._directory)).collect()  # type: ignore[no-untyped-call]
        yield from _total(metric for pid in alive for metric in _of_process(pid))

    def describe(self) -> list[Metric]:
        """Tell nothing: a registry would collect everything to find out the names."""
        return []

    def _alive(self) -> Iterator[int]:
        """List the processes that live, and take away the gauges of the others."""
        for file in sorted(self._directory.glob("gauge_livesum_*.db")):
            pid = int(file.stem.rpartition("_")[2])
            if _lives(pid):
                yield pid
            else:
                with contextlib.suppress(FileNotFoundError):  # another scrape was faster
                    mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]


def _lives(pid: int) -> bool:
    # A number that is in use again belongs to somebody else's child.
    try:
        process = psutil.Process(pid)
        return process.ppid() == os.getppid() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _of_process(pid: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: pid, registry=None).collect()


def _total(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Add up metrics of the same name; of the moments at which processes started, the first one is told."""
    found: dict[str, list[Metric]] = defaultdict(list)
    for metric in metrics:
        found[metric.name].append(metric)
    for name, same in found.items():
        values = [metric.samples[0].value for metric in same]
        total = Metric(name, same[0].documentation, same[0].type)
        total.add_sample(
            same[0].samples[0].name, {}, min(values) if name == "process_start_time_seconds" else sum(values)
        )
        yield total
