"""The last resort of a shutdown."""

import logging
import os
import threading

log = logging.getLogger("epochd")


def exit_at_last(seconds: float) -> None:
    """End this process, come what may, after so long: a statement may hang on a database that never answers.

    The processes that it started notice its end, and end too.
    """

    def exit_now() -> None:
        log.error("the clean shutdown took longer than %s seconds; exiting without it", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, exit_now)
    timer.daemon = True
    timer.start()
