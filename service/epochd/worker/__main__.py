"""``python -m epochd.worker I N``: the I-th of N workers of one ``serve``; its settings come from the environment."""

import sys

from epochd.errors import EpochdError
from epochd.settings import Settings
from epochd.worker.worker import main

try:
    main(Settings(), (int(sys.argv[1]), int(sys.argv[2])), lifeline=True)
except EpochdError as error:
    sys.exit(f"epochd worker: {error.message}")
