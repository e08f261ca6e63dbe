"""The processes that train."""

from typing import Any, Final

from fastapi import APIRouter

from epochd.api import examples
from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.contract.worker_list import WorkerList
from epochd.jobs.present_workers import present

router = APIRouter(route_class=GuardedRoute, tags=["workers"])

TAG: Final = {"name": "workers", "description": "Who trains, on which devices."}
EXAMPLE: Final[dict[str, Any]] = {
    "data": [
        {
            "id": "gpu-1:6984",
            "host": "gpu-1",
            "pid": 6984,
            "devices": [
                {"name": "cuda:0", "memory_used_bytes": 2_147_483_648, "memory_total_bytes": 25_769_803_776}
            ],
            "slots": 1,
            "models": [],
            "running": [
                {
                    "job": examples.JOB_ID,
                    "attempt": 1,
                    "device": "cuda:0",
                    "claimed_at": "2026-01-31T09:00:00.123Z",
                }
            ],
            "measuring": [],
            "started_at": "2026-01-31T08:00:00.000Z",
            "last_seen_at": "2026-01-31T09:00:04.000Z",
        }
    ],
    "next": None,
}


@router.get(
    "/workers",
    operation_id="list_workers",
    summary="List the workers that live",
    responses=describe({200: {"content": {"application/json": {"example": EXAMPLE}}}}, 401, 422, 503),
)
def list_workers(db: DatabaseDep, _query: Nothing) -> WorkerList:
    """Their devices with the memory in use, what runs on each, and when it was last seen: within 20 seconds."""
    with db.read() as tx:
        return WorkerList(data=present(tx))
