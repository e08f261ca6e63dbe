"""``GET /metrics`` for Prometheus."""

import asyncio
import platform
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import exposition
from prometheus_client.metrics_core import InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from starlette.exceptions import HTTPException

from epochd.api import processes
from epochd.api.auth import GuardedRoute, authenticate
from epochd.api.negotiate import negotiate
from epochd.api.requests import Nothing
from epochd.api.responses import describe
from epochd.api.statistics import Reading, families
from epochd.store.database import Database
from epochd.store.statistics import Statistics
from epochd.version import __version__

router = APIRouter(route_class=GuardedRoute, tags=["monitoring"], dependencies=[Depends(authenticate)])

_EXAMPLE: Final = """\
# HELP epochd_database_up 1 when the database answers; if not, all that is read from it is missing.
# TYPE epochd_database_up gauge
epochd_database_up 1.0
# HELP epochd_jobs Jobs by status.
# TYPE epochd_jobs gauge
epochd_jobs{status="queued"} 3.0
epochd_jobs{status="running"} 1.0
# HELP epochd_iterations_total Iterations ever recorded; repeated ones count again.
# TYPE epochd_iterations_total counter
epochd_iterations_total 128000.0
"""
_OPENMETRICS_EXAMPLE: Final = """\
# HELP epochd_iterations Iterations ever recorded; repeated ones count again.
# TYPE epochd_iterations counter
epochd_iterations_total 128000.0
# EOF
"""
_TEXT: Final = {"schema": {"type": "string"}}
_PLAIN: Final = "text/plain"
_OPENMETRICS: Final = "application/openmetrics-text"
_FORMATS: Final[dict[str, tuple[Callable[[Collector], bytes], str]]] = {
    _PLAIN: (exposition.generate_latest, exposition.CONTENT_TYPE_PLAIN_0_0_4),
    _OPENMETRICS: (openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST),
}


class Exposition:
    """All that one application tells Prometheus; ``traffic`` is what its middleware measures."""

    def __init__(self, db: Database) -> None:
        self.traffic, self._own = processes.measure()
        self._database = db.dialect
        self._reading = Reading(db)

    async def text(self, accept: str | None) -> tuple[bytes, str]:
        """Write everything, in the format that ``accept`` asks for, and tell which that is."""
        encode, media_type = _FORMATS[_choose(accept)]
        found = await self._reading.newest()
        return await asyncio.to_thread(encode, _Scrape(self._metrics, found)), media_type

    def _metrics(self, found: Statistics | None) -> Iterator[Metric]:
        labels = {"version": __version__, "python": platform.python_version(), "database": self._database}
        yield InfoMetricFamily("epochd_build", "What is running here.", value=labels)
        yield from families(found)
        for metric in self._own.collect():
            # When a series was begun is a series more that nobody asks for.
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


def _choose(accept: str | None) -> str:
    try:
        return negotiate(accept, list(_FORMATS))
    except HTTPException:
        return _PLAIN


class _Scrape(Collector):
    """One answer."""

    def __init__(self, metrics: Any, found: Statistics | None) -> None:
        self._metrics = metrics
        self._found = found

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics(self._found)


async def get_exposition(request: Request) -> Exposition:
    """Give what this process tells Prometheus."""
    told = request.app.state.exposition
    assert isinstance(told, Exposition)
    return told


@router.get(
    "/metrics",
    operation_id="get_prometheus_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=describe(
        {
            200: {
                "description": "Prometheus' text format; OpenMetrics where `Accept` asks for it.",
                "content": {
                    _PLAIN: {**_TEXT, "example": _EXAMPLE},
                    _OPENMETRICS: {**_TEXT, "example": _OPENMETRICS_EXAMPLE},
                },
            }
        },
        401,
        422,
    ),
)
async def get_prometheus_metrics(
    request: Request, told: Annotated[Exposition, Depends(get_exposition)], _query: Nothing
) -> Response:
    """The whole service in numbers: its queue, jobs, workers, devices and requests.

    What comes from the database is at most a second old, and the same whichever process is asked. While the database
    is away, `epochd_database_up` is 0 and the rest of it is missing. Request latencies, streams and long-polls are
    sums over all API processes of one `epochd serve`.
    """
    body, media_type = await told.text(request.headers.get("accept"))
    return Response(body, media_type=media_type, headers={"Cache-Control": "no-store"})
