"""The reference of the API for people, at ``/docs``, without a content delivery network."""

from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html

from epochd.api.packaged_files import compressed, directory_of

_SCRIPTS: Final = "/docs/scripts"
# What FastAPI writes begins with a script in the page itself.
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
    )
}


def install(app: FastAPI) -> None:
    """Make ``app`` serve the reference, with the scripts that the package ``fastapi_offline`` brings."""
    scripts = directory_of("fastapi_offline", "static")
    if scripts is None:
        return
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="epochd: the API",
        swagger_js_url=f"{_SCRIPTS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_SCRIPTS}/swagger-ui.css",
        swagger_favicon_url="/dashboard/icon.svg",
    )

    async def show_page(_request: Request) -> Response:
        return Response(page.body, headers=_HEADERS, media_type="text/html")

    app.mount(_SCRIPTS, compressed(scripts))
    app.add_route("/docs", show_page, methods=["GET", "HEAD"], include_in_schema=False)
