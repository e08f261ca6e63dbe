"""The dashboard's files: one shell for every page, and what it loads.

They hold nothing secret and need no key; what a page shows it asks of ``/v1``, with the key that its user gave.
"""

from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from epochd.dashboard import STATIC, plotting_scripts

PAGES: Final = ("/", "/jobs/{job_id}", "/compare", "/submit", "/datasets", "/datasets/{name}", "/workers")
"""What ``static/main.js`` knows."""

# Bokeh writes its styles into the page; scripts come from here and from nowhere else.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time, and mostly answered 304: an upgrade shows at once
}


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(_HEADERS)
        return answer


def install(app: FastAPI) -> None:
    """Make ``app`` serve the dashboard."""
    files = _Files(directory=STATIC)

    async def show_page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    for path in PAGES:
        app.add_route(path, show_page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/dashboard", GZipMiddleware(files))
    scripts = plotting_scripts()
    if scripts is not None:
        app.mount("/plotting", GZipMiddleware(_Files(directory=scripts)))
