"""Which batch size to take: measured on the device that trains."""

import asyncio
from typing import Annotated, Any, Final

from fastapi import APIRouter, Body, Path, Query, Request, Response
from pydantic import BaseModel, Field

from epochd.api.auth import GuardedRoute
from epochd.api.deps import DatabaseDep, FeedDep
from epochd.api.feed import Feed
from epochd.api.polling import MAX_WAIT_SECONDS
from epochd.api.responses import describe
from epochd.api.traffic import TrafficDep
from epochd.api.waiting import Caller
from epochd.contract.batch_size import BatchSizeMeasurement, BatchSizeRequest
from epochd.jobs import batch_size
from epochd.store import measurements
from epochd.store.database import Database
from epochd.store.measurements import MeasurementRow

router = APIRouter(route_class=GuardedRoute, tags=["batch size"])

LOOK_EVERY_SECONDS: Final = 0.25
_ID: Final = "batchsize_01m8677f5sm2tr1zdm9b4wn2m0"
REQUESTS: Final[dict[str, Any]] = {
    "model": {
        "summary": "A data set and a model",
        "value": {"dataset": "digits", "model": {"name": "cnn"}, "seconds": 10},
    },
    "shortest": {"summary": "The default model", "value": {"dataset": "iris"}},
}


def _size(size: int, megabytes: int, speed: float) -> dict[str, Any]:
    return {
        "batch_size": size,
        "fits": True,
        "peak_memory_bytes": megabytes * 1_000_000,
        "samples_per_second": speed,
        "epoch_seconds": round(1438 // size * size / speed, 4),
        "iterations": 240,
        "reason": None,
    }


EXAMPLE: Final[dict[str, Any]] = {
    "id": _ID,
    "status": "succeeded",
    "done": True,
    "dataset": "digits",
    "model": {"name": "cnn", "channels": [16, 32], "hidden_size": 64, "dropout": 0.0, "batch_norm": False},
    "train_samples": 1438,
    "seconds": 10.0,
    "sizes": [_size(16, 352, 19820.0), _size(32, 353, 28110.0), _size(64, 355, 35773.0)],
    "noise_scale": {
        "value": 32.2,
        "low": 27.2,
        "high": 39.4,
        "gradient_norm_squared": 0.0101,
        "gradient_variance": 0.325,
        "batch_size_small": 16,
        "batch_size_big": 256,
        "measurements": 64,
    },
    "fits": 64,
    "fastest": 64,
    "recommended": 32,
    "reasons": {
        "fits": "64 fits; larger ones were not tried: the time for measuring was up.",
        "fastest": "64 trains on 35773 samples per second: the smallest batch size within 5% of the most, 35773.",
        "recommended": "The gradient noise scale is 32.2 samples (95 %: 27.2 to 39.4): 32 is the power of two nearest "
        "to it. Larger batches save few iterations, smaller ones hardly any samples.",
    },
    "error": None,
    "worker": "host:6984",
    "device": "cpu",
    "created_at": "2026-01-31T09:00:00.123Z",
    "started_at": "2026-01-31T09:00:00.301Z",
    "finished_at": "2026-01-31T09:00:10.655Z",
}
_NOT_YET: Final = (
    *("noise_scale", "fits", "fastest", "recommended", "reasons"),
    *("worker", "device", "started_at", "finished_at"),
)
_WAITING: Final = {**EXAMPLE, "status": "queued", "done": False, "sizes": [], **dict.fromkeys(_NOT_YET)}
_SHOWN: Final = {"content": {"application/json": {"example": EXAMPLE}}}


WaitSeconds = Annotated[
    float,
    Field(
        ge=0,
        le=MAX_WAIT_SECONDS,
        allow_inf_nan=False,
        description="Answer after so many seconds at the latest, or as soon as all is measured.",
    ),
]


class MeasurementQuery(BaseModel, extra="forbid"):
    """The query of a measurement."""

    wait_seconds: WaitSeconds = 0


class NewMeasurementQuery(MeasurementQuery):
    """The query of a new measurement: it is waited for by default."""

    wait_seconds: WaitSeconds = MAX_WAIT_SECONDS


@router.post(
    "/batch-size",
    operation_id="measure_batch_sizes",
    summary="Measure batch sizes on a device",
    response_model=BatchSizeMeasurement,
    responses=describe(
        {
            200: {"description": "All that was measured, and which size to take.", **_SHOWN},
            202: {
                "model": BatchSizeMeasurement,
                "description": "It is still measured, or waits for a worker: ask again at `Location`.",
                "headers": {"Location": {"schema": {"type": "string"}, "example": f"/v1/batch-size/{_ID}"}},
                "content": {"application/json": {"example": _WAITING}},
            },
        },
        *(401, 413, 415, 422, 503),
    ),
)
async def measure_batch_sizes(  # noqa: PLR0913, PLR0917 - FastAPI passes each by its name
    request: Request,
    asked: Annotated[BatchSizeRequest, Body(openapi_examples=REQUESTS)],
    query: Annotated[NewMeasurementQuery, Query()],
    db: DatabaseDep,
    feed: FeedDep,
    traffic: TrafficDep,
) -> Any:
    """Real iterations at each power of two, on the device that would train: memory, speed, and the noise of gradients.

    `fits` is the largest batch size that memory allows, `fastest` the smallest that is about as fast as any,
    `recommended` the critical batch size: the gradient noise scale rounded to a power of two within what fits. A worker
    measures in a process of its own, before its next job; nothing of it stays in memory.
    """
    row = await asyncio.to_thread(batch_size.ask, db, asked)
    with traffic.long_poll(request.scope):
        row = await _waited(request, db, feed, row, query.wait_seconds)
    headers = {"Location": f"/v1/batch-size/{row.id}"}
    return Response(await _body(db, row), 200 if row.is_done else 202, headers, "application/json")


@router.get(
    "/batch-size/{measurement_id}",
    operation_id="get_batch_size_measurement",
    summary="Look at a measurement of batch sizes, or wait for it",
    response_model=BatchSizeMeasurement,
    responses=describe({200: {"description": "What was measured so far.", **_SHOWN}}, 401, 404, 422, 503),
)
async def get_batch_size_measurement(  # noqa: PLR0913, PLR0917 - FastAPI passes each by its name
    request: Request,
    measurement_id: Annotated[
        str, Path(max_length=64, description="The id of a measurement.", examples=[_ID])
    ],
    query: Annotated[MeasurementQuery, Query()],
    db: DatabaseDep,
    feed: FeedDep,
    traffic: TrafficDep,
) -> Any:
    """A measurement as it is now, or with `wait_seconds` as soon as it is done. They are kept for a week."""
    row = await asyncio.to_thread(_read, db, measurement_id)
    if query.wait_seconds:
        with traffic.long_poll(request.scope):
            row = await _waited(request, db, feed, row, query.wait_seconds)
    return Response(await _body(db, row), media_type="application/json")


def _read(db: Database, measurement_id: str) -> MeasurementRow:
    with db.read() as tx:
        return measurements.get(tx, measurement_id)


async def _waited(
    request: Request, db: Database, feed: Feed, row: MeasurementRow, seconds: float
) -> MeasurementRow:
    """Read it again and again until it is done, time is up, or nobody waits any more."""
    loop = asyncio.get_running_loop()
    end, caller = loop.time() + seconds, Caller(request.receive)
    try:
        while not (row.is_done or feed.closed or caller.gone or loop.time() >= end):
            await asyncio.sleep(min(LOOK_EVERY_SECONDS, end - loop.time()))
            row = await asyncio.to_thread(_read, db, row.id)
    finally:
        caller.leave()
    return row


async def _body(db: Database, row: MeasurementRow) -> str:
    return await asyncio.to_thread(_written, db, row)


def _written(db: Database, row: MeasurementRow) -> str:
    with db.read() as tx:
        return batch_size.show(row, tx).model_dump_json()
