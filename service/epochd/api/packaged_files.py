"""Files for browsers that a Python package brings: our own pages, and others' scripts."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

# Bokeh writes its styles into the page; scripts come from here and from nowhere else.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for each time, and mostly answered 304: an upgrade shows at once
}


class PackagedFiles(StaticFiles):
    """A directory of files, each with the headers that keep a page to this service."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Find a file, as Starlette does."""
        answer = await super().get_response(path, scope)
        answer.headers.update(HEADERS)
        return answer


def compressed(directory: Path) -> ASGIApp:
    """Serve a directory, compressed where it is worth it."""
    return GZipMiddleware(PackagedFiles(directory=directory))


def directory_of(package: str, *below: str) -> Path | None:
    """Find a directory of a package without importing it: only browsers run what is in there.

    None when it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0], *below)
    return found if found.is_dir() else None
