"""``python -m epochd.api FD DIRECTORY``: one of the API processes of a ``serve``, on the listening socket it inherits.

In ``DIRECTORY`` all of them keep what they measure. Settings, API keys included, come from the environment.
"""

import os
import signal
import sys

from epochd.api.shared_directory import VARIABLE
from epochd.errors import EpochdError
from epochd.lifeline import at_end_of_input
from epochd.settings import Settings

_, descriptor, directory = sys.argv
# Before prometheus_client is imported, which looks for it then.
os.environ[VARIABLE] = directory

from epochd.api.server import Server, SharedListener, configure_logging  # noqa: E402

try:
    settings = Settings()
    configure_logging(settings.log_level)
    at_end_of_input(lambda: os.kill(os.getpid(), signal.SIGTERM))
    Server(settings).run([SharedListener(fileno=int(descriptor))])
except EpochdError as error:
    sys.exit(f"epochd API: {error.message}")
