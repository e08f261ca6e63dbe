"""Runs attempts as processes of this machine, forked from a server that has loaded torch already.

Importing torch and scikit-learn takes seconds; the fork server does it once, so that a runner's first
iteration comes a fraction of a second after the claim. The server itself never computes: no thread pool and no
CUDA context exists in it, which is what makes forking it safe.
"""

import multiprocessing
import os
import signal
import sys
import threading
from importlib.machinery import ModuleSpec
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

import psutil

from epochd.jobs.complete import Outcome
from epochd.worker.measuring import Measuring, MeasuringOrder
from epochd.worker.operator_models import discover
from epochd.worker.order import AttemptOrder

PRELOAD = "epochd.worker.preload"
KILL_WAIT_SECONDS = 10.0


class RunningAttempt:
    """One runner process, and the pipe on which it reports its outcome."""

    def __init__(self, process: ForkServerProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection

    @property
    def pid(self) -> int | None:
        """The process id of the runner."""
        return self._process.pid

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds; tell whether the process is gone."""
        self._process.join(timeout)
        return self._process.exitcode is not None

    def is_suspended(self) -> bool:
        """Tell whether somebody stopped the process: it holds what it holds, and will not say a word."""
        try:
            return psutil.Process(self._process.pid).status() in {
                psutil.STATUS_STOPPED,
                psutil.STATUS_TRACING_STOP,
            }
        except psutil.Error:
            return False

    def drain(self) -> None:
        """Ask the process to save what it has trained, and to end; returns at once, and may be called again."""
        # ``terminate`` is a signal by number: once the process was reaped, it would reach whoever has that number now.
        if self._process.is_alive():
            self._process.terminate()

    def kill(self) -> None:
        """End the process now, and wait until it is gone."""
        self._process.kill()
        self._process.join(KILL_WAIT_SECONDS)

    def outcome(self) -> Outcome | None:
        """Return what the runner, now gone, had reported, or None when it died before it could."""
        try:
            return self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            return None
        finally:
            self._connection.close()

    def obituary(self) -> str:
        """Say in words how the process ended."""
        code = self._process.exitcode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"exited with code {code}"
        return f"The process that ran the attempt {how}."


class LocalExecutor:
    """Starts runners from one fork server."""

    def __init__(self) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._is_ready = False
        self._getting_ready = threading.Lock()

    def start(self) -> None:
        """Start the fork server; it loads torch while this process goes on."""
        # All below number the GPUs as NVIDIA's management library does, and not the fastest one first.
        os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        _name_main_module()
        self._context.set_forkserver_preload([PRELOAD])
        forkserver.ensure_running()

    def wait_until_ready(self) -> None:
        """Wait until the fork server has loaded torch: a job claimed before that would wait here, its lease running."""
        with self._getting_ready:
            if not self._is_ready:
                process = self._context.Process(target=_nothing, name="epochd-warm-up")
                process.start()
                process.join()
                self._is_ready = True

    def close(self) -> None:
        """End the fork server and multiprocessing's resource tracker, and wait until they are gone.

        A worker that has stopped leaves no process behind. The tracker, which comes with every fork server, would
        notice the end of this process by itself, but only after it.
        """
        self._is_ready = False
        server: Any = forkserver._forkserver  # noqa: SLF001 - there is no public way to stop it
        tracker: Any = resource_tracker._resource_tracker  # noqa: SLF001 - nor this
        # Both hold nothing that wants saving: nobody shares memory or semaphores. Tearing torch down takes a second.
        for process, pid in ((server, server._forkserver_pid), (tracker, tracker._pid)):  # noqa: SLF001
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                process._stop()  # noqa: SLF001

    def devices(self, wanted: str) -> list[str]:
        """List the devices that attempts may use, asking torch in a child: this process never loads it.

        ``wanted`` is ``auto``, ``cpu``, ``cuda``, or a comma-separated list. Raises ``ConfigurationError`` when the
        machine does not have what is wanted.
        """
        if wanted == "cpu":
            return ["cpu"]
        from epochd.worker.probe import probe  # noqa: PLC0415 - only where a GPU may be

        return probe(self._context, wanted)

    def operator_models(self) -> list[dict[str, Any]]:
        """Describe the operator's models that are installed here; those that cannot be used are told in the log."""
        return discover(self._context)

    def measure(self, order: MeasuringOrder) -> Measuring:
        """Start to measure batch sizes, in a process that is gone at the end of its ``with``."""
        return Measuring(self._context, order)

    def launch(self, order: AttemptOrder) -> RunningAttempt:
        """Start a runner for one attempt."""
        from epochd.worker.entry import run  # noqa: PLC0415 - light: loads the runner in the child only

        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=run, args=(order, sender), name=f"epochd-runner-{order.job_id}"
        )
        process.start()
        # With the only other end in the child, its death reads as end of file.
        sender.close()
        return RunningAttempt(process, receiver)


def _nothing() -> None:
    """What the first process does: by then all is loaded."""


def _name_main_module() -> None:
    """Keep children from importing the script that started this process.

    multiprocessing imports the parent's main module in every child; for the ``epochd`` script that is the whole
    command line, 0.3 s a job. It leaves out a main module whose spec is a package's ``__main__``.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is None:
        main.__spec__ = ModuleSpec("epochd.__main__", None)
