"""The dashboard's files: one shell for every page, and what it loads.

They hold nothing secret and need no key; what a page shows it asks of ``/v1``, with the key that its user gave.
"""

from typing import Final

from fastapi import FastAPI, Request, Response

from epochd.api.packaged_files import PackagedFiles, compressed, directory_of
from epochd.dashboard import STATIC

PAGES: Final = ("/", "/jobs/{job_id}", "/compare", "/submit", "/datasets", "/datasets/{name}", "/workers")
"""What ``static/main.js`` knows."""


def install(app: FastAPI) -> None:
    """Make ``app`` serve the dashboard, and the plotting library out of its package."""
    shell = PackagedFiles(directory=STATIC)

    async def show_page(request: Request) -> Response:
        return await shell.get_response("index.html", request.scope)

    for path in PAGES:
        app.add_route(path, show_page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/dashboard", compressed(STATIC))
    plotting = directory_of("bokeh", "server", "static", "js")
    if plotting is not None:
        app.mount("/plotting", compressed(plotting))
