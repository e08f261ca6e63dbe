"""``python -m epochd.mirror``: the mirror of one ``serve``; its settings come from the environment."""

import sys

from epochd.errors import EpochdError
from epochd.mirror.process import main
from epochd.settings import Settings

try:
    main(Settings())
except EpochdError as error:
    sys.exit(f"epochd mirror: {error.message}")
