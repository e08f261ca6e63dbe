"""Another service that has models trained: it answers at once, and looks for the result in the background.

uvicorn --app-dir examples service:app --port 9000
curl -X POST 'http://127.0.0.1:9000/models/digits?epochs=20'
curl http://127.0.0.1:9000/models/digits
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request

from epochd import AsyncClient, EpochdError


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with AsyncClient() as app.state.client:
        app.state.models = {}
        yield
        for model in app.state.models.values():
            model["waiting"].cancel()  # the jobs train on


app = FastAPI(lifespan=_lifespan)


@app.post("/models/{name}", status_code=202)
async def train(name: str, epochs: int, request: Request) -> dict[str, str]:
    """Have a model trained on a data set of this name."""
    state = request.app.state
    try:
        job = await state.client.jobs.submit(
            dataset=name, epochs=epochs, batch_size=32, name=f"model of {name}"
        )
    except EpochdError as error:
        raise HTTPException(502, error.message) from None
    state.models[name] = {"job": job.id, "waiting": asyncio.create_task(_fetched(job, name))}
    return {"job": job.id}


async def _fetched(job: Any, name: str) -> dict[str, Any]:
    done = await job.wait()
    files = await done.download(Path("models") / name)
    return {"status": done.status, "metrics": done.metrics, "files": [str(path) for path in files]}


@app.get("/models/{name}")
async def look(name: str, request: Request) -> dict[str, Any]:
    """Tell how far it is; nothing is asked of the training service for that."""
    model = request.app.state.models.get(name)
    if model is None:
        raise HTTPException(404, f"nobody has asked for a model of {name}")
    return {"job": model["job"], "ready": model["waiting"].done(), **(_result(model["waiting"]))}


def _result(waiting: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
    try:
        return waiting.result() if waiting.done() else {}
    except EpochdError as error:
        raise HTTPException(502, error.message) from None
