"""The API, put together. Importing this does nothing; ``create_app`` composes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, Depends, FastAPI

from epochd.api import (
    artifacts,
    batch_size,
    compare,
    control,
    dashboard,
    datasets,
    diagnosis,
    diff,
    errors,
    events,
    health,
    jobs,
    metrics,
    models,
    openapi,
    polling,
    prometheus,
    reference,
    what_if,
    workers,
)
from epochd.api.auth import authenticate
from epochd.api.download import FileThreads
from epochd.api.event_stream import Handover
from epochd.api.feed import Feed
from epochd.api.intake import Intake
from epochd.api.job_board import JobBoard
from epochd.api.patience import Patience, Patient
from epochd.api.requests import BodyLimit
from epochd.api.responses import describe
from epochd.api.traffic import Meter
from epochd.settings import Settings
from epochd.store.database import Database

FEED_CLOSING_SECONDS: Final = 5.0


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is connected or started before the first request needs it.

    ``app.state`` holds ``settings``, ``database``, ``feed``, ``board``, ``patience`` and ``exposition``. When the
    server is to shut down, call ``app.state.feed.close()`` and ``app.state.patience.close()``, from any thread or
    signal handler: they end all streams, and the answers that nobody takes, for which Uvicorn would wait.
    """
    app = FastAPI(
        title="epochd",
        summary="Trains models: epochs, mini-batches and iterations recorded, streamed and stopped in time.",
        description=openapi.DESCRIPTION,
        version=openapi.VERSION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=openapi.TAGS,
        docs_url=None,  # `reference` serves it, without a content delivery network
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.database = Database(settings.resolved_database_url, archives=settings.artifacts_dir)
    app.state.feed = Feed(app.state.database)
    app.state.board = JobBoard(app.state.database)
    app.state.patience = Patience(settings.slow_reader_seconds)
    app.state.file_threads = FileThreads()
    app.state.intake = Intake(settings)
    app.state.exposition = prometheus.Exposition(app.state.database)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Patient, patience=app.state.patience)
    app.add_middleware(Handover)
    app.add_middleware(Meter, traffic=app.state.exposition.traffic)  # the outermost: it sees every answer
    errors.install(app)
    polling.install(app)
    app.include_router(_v1())
    app.include_router(health.router, responses=describe({}))
    app.include_router(prometheus.router)
    dashboard.install(app)
    reference.install(app)
    openapi.install(app)
    return app


def _v1() -> APIRouter:
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(authenticate)])
    for module in (
        models,
        diff,
        jobs,
        diagnosis,
        control,
        metrics,
        compare,
        events,
        artifacts,
        datasets,
        what_if,
        batch_size,
        workers,
    ):
        v1.include_router(module.router)
    return v1


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    await asyncio.to_thread(app.state.intake.sweep, app.state.database)
    yield
    app.state.feed.close()
    await asyncio.to_thread(app.state.feed.join, FEED_CLOSING_SECONDS)
    app.state.board.close()
    app.state.database.close()
