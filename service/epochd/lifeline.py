"""How a process makes sure that it ends: with the one that started it, and in time."""

import logging
import os
import threading
from collections.abc import Callable

log = logging.getLogger("epochd")


def at_end_of_input(call: Callable[[], object]) -> None:
    """Call something, on a thread of its own, when standard input ends: whoever holds its other end is gone."""

    def wait() -> None:
        # Not sys.stdin: a thread that still reads it when the interpreter ends is a fatal error.
        while os.read(0, 1024):
            pass
        call()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


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
