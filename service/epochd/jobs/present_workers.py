"""Who can train, and what runs there."""

from collections import defaultdict

from epochd.contract.worker_list import Worker, WorkerDevice, WorkerJob
from epochd.store import attempts, measurements, workers
from epochd.store.database import Transaction
from epochd.store.workers import WorkerRow


def present(tx: Transaction) -> list[Worker]:
    """List the workers that were seen of late, the oldest first, each with what it holds."""
    running: defaultdict[str, list[WorkerJob]] = defaultdict(list)
    for job, attempt in attempts.running(tx):
        held = WorkerJob(
            job=job, attempt=attempt.number, device=attempt.device, claimed_at=attempt.claimed_at
        )
        running[attempt.worker].append(held)
    measuring: defaultdict[str, list[str]] = defaultdict(list)
    for row in measurements.running(tx):
        measuring[str(row.worker)].append(row.id)
    return [_shown(row, running[row.id], measuring[row.id]) for row in workers.alive(tx)]


def _shown(row: WorkerRow, running: list[WorkerJob], measuring: list[str]) -> Worker:
    memory = row.memory or {}
    devices = [
        WorkerDevice(
            name=str(name),
            memory_used_bytes=memory.get(str(name), {}).get("used"),
            memory_total_bytes=memory.get(str(name), {}).get("total"),
        )
        for name in row.devices
    ]
    return Worker(
        id=row.id,
        host=row.host,
        pid=row.pid,
        devices=devices,
        slots=row.slots,
        models=row.models or [],
        running=running,
        measuring=measuring,
        started_at=row.started_at,
        last_seen_at=row.last_seen_at,
    )
