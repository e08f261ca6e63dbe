"""Keeps processes alive for ``serve``: starts them, starts them again when they die, and stops them in order."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

log = logging.getLogger("epochd")

CHECK_SECONDS = 0.5
FIRST_RESTART_DELAY_SECONDS = 1.0
MAX_RESTART_DELAY_SECONDS = 30.0
SETTLED_SECONDS = 30.0


class Child:
    """One process, started again after a delay that doubles while it keeps dying young.

    It runs ``python`` with ``arguments``, such as ``["-m", "epochd.worker"]``, and must end when its standard input
    does (see ``lifeline.py``). Of this process' environment it gets all but the ``EPOCHD_`` variables, and
    ``environment``; of its files only ``descriptors``.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._environment = environment
        self._descriptors = descriptors
        self._delay = FIRST_RESTART_DELAY_SECONDS
        self._started_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            [sys.executable, *self._arguments],
            stdin=subprocess.PIPE,  # the lifeline: it ends with this process, however that ends
            env={**others, **self._environment},
            pass_fds=self._descriptors,
            process_group=0,  # Ctrl-C in a terminal is for this process, which then stops the others in order
        )
        self._started_at = time.monotonic()

    def restart_if_dead(self) -> None:
        """Start the process again if it has ended, and its delay has passed."""
        if self._process is None or self._process.poll() is None:
            return
        age = time.monotonic() - self._started_at
        if age >= self._delay:
            settled = age >= SETTLED_SECONDS
            self._delay = (
                FIRST_RESTART_DELAY_SECONDS if settled else min(self._delay * 2, MAX_RESTART_DELAY_SECONDS)
            )
            log.error("%s ended with code %s; starting it again", self._name, self._process.returncode)
            self.start()

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None:
            self._process.terminate()

    def wait(self, deadline: float) -> None:
        """Wait until the process has ended; at the deadline it is killed."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("%s did not end in time and is killed", self._name)
            self._process.kill()
            self._process.wait()


class Supervisor:
    """Children that live and end together."""

    def __init__(self, name: str, children: Sequence[Child], shutdown_seconds: float) -> None:
        self._children = children
        self._shutdown_seconds = shutdown_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    def start(self) -> None:
        """Start all children, and look after them from now on."""
        for child in self._children:
            child.start()
        self._thread.start()

    def stop(self) -> None:
        """Stop all children; those that take longer than ``shutdown_seconds`` are killed."""
        self._stopping.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join()
        for child in self._children:
            child.terminate()
        deadline = time.monotonic() + self._shutdown_seconds
        for child in self._children:
            child.wait(deadline)

    def _watch(self) -> None:
        while not self._stopping.wait(CHECK_SECONDS):
            for child in self._children:
                self._look_after(child)

    def _look_after(self, child: Child) -> None:
        try:
            child.restart_if_dead()
        except Exception:
            # Such as no memory for a process: what dies unseen leaves jobs stuck. Say it, and try again.
            log.exception("%s: unexpected error", self._thread.name)
