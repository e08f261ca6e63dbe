"""The web page: files that a browser runs as they are, without a build.

``static/index.html`` is the shell of every page; ``static/main.js`` chooses from ``static/pages/`` by the path. All
that a page shows comes from the public HTTP API, and its state is its address.
"""

from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
"""Our own files."""
