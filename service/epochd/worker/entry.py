"""The first code in a runner process. Importing it is cheap: the worker, which never loads torch, imports it too."""

import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection

from epochd.worker.drain import Drain
from epochd.worker.order import AttemptOrder


def run(order: AttemptOrder, connection: Connection) -> None:
    """Run one attempt, report its outcome on ``connection``, and end the process at once.

    Skipping the interpreter's teardown saves tenths of a second a job, and everything that matters has been written.
    """
    drain = Drain()
    _settle_in(order, drain)
    from epochd.worker.runner import run_attempt  # noqa: PLC0415 - loaded by the fork server, not by the worker

    outcome = run_attempt(order, drain)
    if outcome is not None:
        connection.send(outcome)
    connection.close()
    logging.shutdown()
    os._exit(0)


def _settle_in(order: AttemptOrder, drain: Drain) -> None:
    # From the worker, or from a machine that shuts down and tells every process: each time it means to save and end.
    signal.signal(signal.SIGTERM, drain.ask)
    stay_with_worker(order.log_level)


def stay_with_worker(log_level: str) -> None:
    """Log as the worker does, and live as long: what every process that it starts does first."""
    # Ctrl-C in a terminal reaches the whole process group; what happens to these is for the worker to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", force=True)
    threading.Thread(target=_die_with_worker, name="lifeline", daemon=True).start()


def _die_with_worker() -> None:
    """End this process when the worker is gone: nobody would bring its work to an end."""
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
    os._exit(1)
