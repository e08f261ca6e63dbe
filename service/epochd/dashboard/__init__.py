"""The web page: files that a browser runs as they are, without a build.

``static/index.html`` is the shell of every page; ``static/main.js`` chooses from ``static/pages/`` by the path. All
that a page shows comes from the public HTTP API, and its state is its address.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
"""Our own files."""


def plotting_scripts() -> Path | None:
    """Find the directory of the scripts that Bokeh's package brings; None when it is not installed.

    The package itself is never imported: only the browser runs it.
    """
    spec = find_spec("bokeh")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = Path(spec.submodule_search_locations[0]) / "server" / "static" / "js"
    return found if found.is_dir() else None
